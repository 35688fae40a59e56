package containers

// cleanup undoes the steps of an operation that fails half-way, last one first:
//
//	var undo cleanup
//	defer undo.unless(&err)
//	…
//	undo.add(func() { … })
type cleanup []func()

// add notes how to undo the step that was just done. A nil function is none.
func (c *cleanup) add(undo func()) {
	if undo != nil {
		*c = append(*c, undo)
	}
}

// unless undoes everything if *err is set, that is, unless all went well.
func (c *cleanup) unless(err *error) {
	if *err == nil {
		return
	}
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
}
