package main

import (
	"fmt"
	"time"
)

// layers is how many layers the image has that is run.
const layers = 20

// images measures loading an image, and running one of many layers.
func (b *bench) images() error {
	base, err := baseLayer()
	if err != nil {
		return err
	}
	large, layered := largeImage("large:latest", b.scale.Layer), layeredImage("layered:latest", base, layers)
	return b.each(b.mains(), func(e *engine) error {
		began := time.Now()
		if err := e.load(large); err != nil {
			return err
		}
		b.table.add(fmt.Sprintf("docker load of %d MiB, s", b.scale.Layer>>20), e.name, time.Since(began).Seconds(), less)
		if err := e.load(layered); err != nil {
			return err
		}
		for range b.scale.Times {
			began = time.Now()
			if _, err := e.do("run", "--rm", "--network", "none", "layered", "true"); err != nil {
				return err
			}
			b.table.add(fmt.Sprintf("docker run --rm of an image of %d layers, ms", layers), e.name, milliseconds(time.Since(began)), less)
		}
		_, err := e.do("rmi", "large", "layered")
		return err
	})
}
