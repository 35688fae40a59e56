// Package metrics tells Prometheus how lrd is: what there is at the moment it
// asks, and what has happened since the daemon was started.
//
// # What there is
//
//	lrd_info{version}                                  1
//	lrd_containers{state}                              containers, by Docker's word for their state
//	lrd_descriptors_stored, lrd_descriptors_max        in systemd's descriptor store of lrd.service
//	lrd_sessions                                       streams of clients that would survive a restart
//	lrd_container_output_bytes_total{id,name,driver,stream}          what a container has written, ever
//	lrd_container_output_dropped_bytes_total{id,name,driver,stream}  of these, not kept, as the disk was full
//	lrd_output_drained_bytes_total{driver}             taken from containers with that log driver
//	lrd_output_forwarded_bytes_total{driver}           of these, delivered by the log driver
//	lrd_restore_duration_seconds, lrd_restore_containers   of the daemon's start
//	lrd_reloads_total{result}                          of the configuration: ok, failed
//	go_*, process_*                                    the Go runtime and the process
//
// Bytes per second of a container are rate(lrd_container_output_bytes_total[1m]).
// A container whose output nobody has looked at since the daemon's start and that does not
// run has no series for its output.
//
// # How it is asked
//
// Over HTTP, /metrics, on sockets of its own that systemd holds
// (packaging/systemd/lrd-metrics.socket) and that are not there by default: whoever can
// connect can read the names of containers. This package serves what it is given; it
// knows nobody else here, and asks them through Sources.
//
// # Ownership
//
// Serve runs until Close, which hangs up on everybody. Figures are asked for in the
// goroutine of the request, which ends within seconds whatever its client does; all methods may be called by anybody.
package metrics
