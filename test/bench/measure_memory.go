package main

import (
	"fmt"
	"time"
)

// settle is how long the engines are left alone before their memory is looked at.
const settle = 3 * time.Second

// memory measures, once for each engine, what everything that is not a container takes: beside a lab
// without an engine, and for each idle container.
func (b *bench) memory() error {
	const few = 10
	for _, e := range b.mains() {
		for _, other := range b.engines {
			if _, err := b.lab.exec(append([]string{"systemctl", "stop"}, other.units...)...); err != nil {
				return err
			}
		}
		time.Sleep(settle)
		without, err := b.lab.memory(payload)
		if err != nil {
			return err
		}
		if err := b.alone(e); err != nil {
			return err
		}
		if _, err := e.do("version"); err != nil {
			return err
		}
		var at [3]int64
		for i, n := range []int{0, few, b.scale.Idle} {
			if i > 0 {
				if err := e.idle(b, []int{0, few}[i-1], n); err != nil {
					return err
				}
			}
			time.Sleep(settle)
			if at[i], err = b.lab.memory(payload); err != nil {
				return err
			}
		}
		b.table.add("Memory, no container, MiB", e.name, float64(at[0]-without)/(1<<20), less)
		b.table.add(fmt.Sprintf("Memory per idle container (%d to %d), KiB", few, b.scale.Idle), e.name,
			float64(at[2]-at[1])/float64(b.scale.Idle-few)/(1<<10), less)
		if err := e.clean(); err != nil {
			return err
		}
	}
	return nil
}
