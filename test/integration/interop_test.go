//go:build integration

package integration

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// sharing are the arguments with which buildah works in lrd's image storage.
const sharing = "--root /var/lib/lrd/storage --runroot /run/lrd/storage --storage-driver overlay"

// TestImagesOfOtherTools puts images into lrd's storage with skopeo and buildah, takes them out with them, and
// runs what is in podman's storage, all of it beside a container that runs and does not notice.
func TestImagesOfOtherTools(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.tick("runs")
	pid := l.inspect("runs").State.Pid
	l.exec("sh", "-ec", "mkdir -p /root/work/bin && cp $(command -v busybox) /root/work/bin/busybox && ln -s busybox /root/work/bin/sh && mkdir -p /var/tmp /etc/containers && echo '{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}' >/etc/containers/policy.json; "+
		// buildah of Debian 13 wants to find it before it builds anything, with a network or without.
		"mkdir -p /usr/lib/podman; [ -e /usr/lib/podman/netavark ] || install -m 755 /bin/true /usr/lib/podman/netavark")

	// In with skopeo: lrd sees it at once, without a restart; and out again.
	l.exec("sh", "-ec", "skopeo copy --quiet containers-storage:"+lrdRoot+"docker.io/library/busybox:latest docker-archive:/root/out.tar:busybox:latest; "+
		"skopeo copy --quiet docker-archive:/root/out.tar containers-storage:"+lrdRoot+"docker.io/library/foreign:1")
	assert.Equal(t, l.docker("run", "--rm", "foreign:1", "echo", "hello"), "hello")
	assert.Equal(t, l.docker("images", "--quiet", "foreign:1"), l.docker("images", "--quiet", "busybox"))
	l.docker("rmi", "foreign:1")
	r := l.tryExec("skopeo", "inspect", "containers-storage:"+lrdRoot+"docker.io/library/foreign:1")
	assert.Check(t, r.code != 0, "skopeo still sees what lrd has removed")

	// Built by buildah in lrd's storage, from scratch.
	l.writeFile("/root/work/Dockerfile", "FROM scratch\nCOPY bin /bin\nENV MADE=here\nEXPOSE 80\nLABEL by=buildah\nVOLUME /data\nCMD [\"/bin/sh\", \"-c\", \"echo $MADE\"]\n")
	l.exec("sh", "-ec", "buildah "+sharing+" build --isolation chroot --quiet --tag docker.io/library/built:1 /root/work")
	assert.Equal(t, l.docker("run", "--rm", "built:1"), "here")
	assert.Equal(t, l.docker("run", "--rm", "--network", "container:runs", "built:1"), "here") // though it exposes a port
	assert.Equal(t, l.docker("inspect", "--format", "{{index .Config.Labels `by`}}", "built:1"), "buildah")
	assert.Check(t, is.Contains(l.docker("history", "built:1"), "MADE=here"))

	// Built by buildah in its own storage: by way of an archive, and where it is.
	l.exec("sh", "-ec", "buildah --storage-driver overlay build --isolation chroot --quiet --tag localhost/theirs:1 /root/work; "+
		"buildah --storage-driver overlay push --quiet localhost/theirs:1 docker-archive:/root/theirs.tar:example.org/theirs:1")
	l.must("load", l.run(l.dockerCmd("load", "--input", l.path("/root/theirs.tar")), nil))
	assert.Equal(t, l.docker("run", "--rm", "example.org/theirs:1"), "here")
	l.docker("rmi", "localhost/theirs:1") // buildah has put its own name into the archive too
	l.refused(125, []string{"No such image: localhost/theirs:1"}, "run", "--pull", "never", "localhost/theirs:1")
	l.config("additional-image-stores = [\"/var/lib/containers/storage\"]\n")
	l.restart()
	l.docker("rmi", "example.org/theirs:1", "built:1")
	assert.Equal(t, l.docker("run", "--name", "on-theirs", "localhost/theirs:1"), "here")
	assert.Check(t, is.Contains(l.docker("images", "--format", "{{.Repository}}:{{.Tag}}"), "localhost/theirs:1"))
	l.refused(1, []string{"additional image store"}, "rmi", "--force", "localhost/theirs:1")
	l.restart()
	assert.Equal(t, l.docker("start", "--attach", "on-theirs"), "here")
	l.docker("rm", "on-theirs")
	l.exec("sh", "-ec", "buildah --storage-driver overlay rmi localhost/theirs:1")
	assert.Check(t, !strings.Contains(l.docker("images", "--format", "{{.Repository}}"), "theirs"))

	// The container that runs is as if nothing had happened, and can be removed.
	l.fine("runs", pid)
	l.docker("rm", "--force", "runs")
	l.assertClean()
	l.soundStorage()
}
