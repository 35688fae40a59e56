// Package integration tests the real lrd under a real systemd, driven through
// the real docker client. It holds nothing but tests, and they need the build
// tag "integration" and root: `make test-integration`.
//
// # Words
//
// A lab is a throwaway machine with systemd as PID 1 (test/lab/lab). A suite
// is what the lab's root file system is: "host" is an overlay over this
// machine's own root, "trixie" is Debian 13 with systemd 257. One run of the
// tests is for one suite.
//
// # A test
//
//	func TestSomething(t *testing.T) {
//		t.Parallel()
//		l := boot(t)
//		id := l.docker("run", "-d", "busybox", "sleep", "1000")
//		l.restart()
//		assert.Equal(t, l.inspect(id).State.Status, container.StateRunning)
//	}
//
// Every test boots labs of its own, which takes about a second, and may do to
// them what it likes: they are thrown away when it ends. Tests are parallel;
// how many at once is LRD_LABS, and how large a test may be follows from it:
// all that a lab keeps is in memory. Nothing may depend on how fast the machine
// is: wait for a condition (lab.eventually) with a generous limit, and measure
// time only where a promise is about time.
//
// A test that cannot show on this machine what it is there for calls skip,
// with the reason; the run ends with a list of these.
//
// If a test fails, the journal of lrd and of the containers' units follows its
// messages. The verbs of a lab end the test if they fail, so that they are for
// the test's own goroutine; what begins with try gives an error back instead.
//
// # Environment
//
//	SUITE       host (default) or trixie
//	LRD_BIN     the lrd to test (default bin/lrd of this checkout)
//	LRD_LAB     the lab command (default test/lab/lab of this checkout)
//	LRD_LABS    how many tests run at once (default 3)
//	LRD_SOAK    1 for the long versions of tests that repeat something; `make soak`
//	DOCKER_NEW  a current docker client (default: lab client new)
//	DOCKER_OLD  a docker client of API 1.41 (default: lab client old)
//	TESTCONTAINERS  where the npm package of that name is (default: lab testcontainers)
package integration
