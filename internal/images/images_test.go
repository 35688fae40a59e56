package images

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestResolve(t *testing.T) {
	s := openStore(t, nil)
	a, b := simpleImage(t, "a", "example/bb", "bb:1"), simpleImage(t, "b", "reg.example/x:y")
	load(t, s, dockerArchive(t, []testImage{a, b}))
	idA, idB := a.id(t), b.id(t)
	for _, tc := range []struct {
		ref  string
		want digest.Digest
	}{
		{"example/bb", idA},
		{"example/bb:latest", idA},
		{"docker.io/example/bb", idA},
		{"bb:1", idA},
		{"library/bb:1", idA},
		{"reg.example/x:y", idB},
		{idA.String(), idA},
		{idA.Encoded(), idA},
		{idA.Encoded()[:12], idA},
		{idB.String()[:15], idB},
	} {
		got, err := s.Resolve(t.Context(), tc.ref)
		assert.NilError(t, err, tc.ref)
		assert.Equal(t, got.ID, tc.want, tc.ref)
	}
	for ref, want := range map[string]string{
		"nothing":                 "No such image: nothing:latest",
		"nothing:x":               "No such image: nothing:x",
		"reg.example/x":           "No such image: reg.example/x:latest",
		"sha256:" + zeros64:       "No such image: sha256:" + zeros64,
		"bb@sha256:" + zeros64:    "No such image: bb@sha256:" + zeros64,
		"deadbeefdeadbeefdead":    "No such image: deadbeefdeadbeefdead:latest",
		"example/bb:latest:twice": "invalid reference format",
		"UPPER":                   "invalid reference format: repository name (library/UPPER) must be lowercase",
		"":                        "invalid reference format",
	} {
		_, err := s.Resolve(t.Context(), ref)
		assert.ErrorContains(t, err, want)
		assert.Assert(t, errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err))
	}
}

const zeros64 = "0000000000000000000000000000000000000000000000000000000000000000"

// What a Docker image configuration may say, OCI's or not, comes through.
func TestConfigIsWhole(t *testing.T) {
	s := openStore(t, nil)
	img := simpleImage(t, "x", "x:1")
	img.config = dockerspec.DockerOCIImageConfig{
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{
			Healthcheck: &dockerspec.HealthcheckConfig{Test: []string{"CMD", "true"}, Interval: time.Second, StartInterval: 2 * time.Second, Retries: 3},
			OnBuild:     []string{"RUN true"},
			Shell:       []string{"/bin/bash", "-c"},
		},
	}
	img.config.User = "1000:1000"
	img.config.ExposedPorts = map[string]struct{}{"80/tcp": {}}
	img.config.Env = []string{"A=1"}
	img.config.Entrypoint = []string{"/e"}
	img.config.Cmd = []string{"c"}
	img.config.Volumes = map[string]struct{}{"/v": {}}
	img.config.WorkingDir = "/w"
	img.config.Labels = map[string]string{"l": "1"}
	img.config.StopSignal = "SIGINT"
	load(t, s, dockerArchive(t, []testImage{img}))

	got, err := s.Resolve(t.Context(), "x:1")
	assert.NilError(t, err)
	assert.DeepEqual(t, got.Config.Config, img.config)

	ins, err := s.Inspect(t.Context(), "x:1")
	assert.NilError(t, err)
	assert.DeepEqual(t, *ins.Config, img.config)
	assert.Equal(t, ins.ID, img.id(t).String())
	assert.DeepEqual(t, ins.RepoTags, []string{"x:1"})
	assert.DeepEqual(t, ins.RootFS, image.RootFS{Type: "layers", Layers: []string{digest.FromBytes(img.layers[0]).String()}})
	assert.Equal(t, ins.Created, "2026-01-02T03:04:05.0000006Z")
	assert.Equal(t, ins.Architecture+"/"+ins.Os, "amd64/linux")
	assert.Equal(t, ins.Author, "nobody")
	assert.Equal(t, ins.Size, int64(len(img.layers[0])))
	assert.Equal(t, ins.GraphDriver.Name, "vfs")
	assert.Assert(t, time.Since(ins.Metadata.LastTagTime) < time.Minute)
	_, err = json.Marshal(ins)
	assert.NilError(t, err)
}

func TestListAndFilters(t *testing.T) {
	s := openStore(t, nil)
	a, b := simpleImage(t, "a", "example/bb:1", "other:2"), simpleImage(t, "b", "b:1")
	a.config.Labels = map[string]string{"k": "v"}
	b.layers = append([][]byte{a.layers[0]}, b.layers...)
	none := simpleImage(t, "none")
	load(t, s, dockerArchive(t, []testImage{a, b, none}))
	for _, tc := range []struct {
		name    string
		filters Filters
		want    [][]string // names of each image, in any order
	}{
		{"all", nil, [][]string{{"b:1"}, {"example/bb:1", "other:2"}, {}}},
		{"dangling", Filters{"dangling": {"true": true}}, [][]string{{}}},
		{"not dangling", Filters{"dangling": {"0": true}}, [][]string{{"b:1"}, {"example/bb:1", "other:2"}}},
		{"label", Filters{"label": {"k": true}}, [][]string{{"example/bb:1", "other:2"}}},
		{"label and value", Filters{"label": {"k=v": true}}, [][]string{{"example/bb:1", "other:2"}}},
		{"label and other value", Filters{"label": {"k=w": true}}, [][]string{}},
		{"no label", Filters{"label!": {"k": true}}, [][]string{{"b:1"}, {}}},
		{"reference", Filters{"reference": {"example/*": true}}, [][]string{{"example/bb:1"}}},
		{"reference with tag", Filters{"reference": {"*:1": true}}, [][]string{{"b:1"}}},
		{"two references", Filters{"reference": {"other": true, "b": true}}, [][]string{{"b:1"}, {"other:2"}}},
		{"before itself", Filters{"before": {"b:1": true}}, [][]string{}},
		{"since", Filters{"since": {"b:1": true}}, [][]string{}},
		{"until", Filters{"until": {"2026-01-02T03:04:05Z": true}}, [][]string{}},
		{"until later", Filters{"until": {"2026-01-03": true}}, [][]string{{"b:1"}, {"example/bb:1", "other:2"}, {}}},
		{"switched off", Filters{"dangling": {"true": false}}, [][]string{{"b:1"}, {"example/bb:1", "other:2"}, {}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			list, err := s.List(t.Context(), ListOptions{Filters: tc.filters})
			assert.NilError(t, err)
			assert.Equal(t, len(list), len(tc.want), "%+v", list)
			for _, want := range tc.want {
				found := false
				for _, got := range list {
					found = found || assertEqual(got.RepoTags, want)
				}
				assert.Assert(t, found, "%v is not in %+v", want, list)
			}
		})
	}
	for key, value := range map[string]string{"color": "red", "dangling": "maybe", "reference": "[", "until": "soon"} {
		_, err := s.List(t.Context(), ListOptions{Filters: Filters{key: {value: true}}})
		assert.Assert(t, errdefs.IsInvalidArgument(err), "%s: %v", key, err)
		assert.Assert(t, is.Contains(err.Error(), key))
	}
	_, err := s.List(t.Context(), ListOptions{Filters: Filters{"since": {"nothing": true}}})
	assert.Assert(t, errdefs.IsNotFound(err))

	list, err := s.List(t.Context(), ListOptions{SharedSize: true, Containers: func(string) int64 { return 2 }})
	assert.NilError(t, err)
	common := int64(len(a.layers[0]))
	for _, got := range list {
		want := map[string]int64{a.id(t).String(): common, b.id(t).String(): common, none.id(t).String(): 0}[got.ID]
		assert.Equal(t, got.SharedSize, want)
		assert.Equal(t, got.Containers, int64(2))
		assert.Equal(t, got.Created, int64(1767323045))
	}
	n, err := s.Count(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, n, 3)
}

func assertEqual(a, b []string) bool {
	return is.DeepEqual(a, b)().Success()
}

func TestHistory(t *testing.T) {
	s := openStore(t, nil)
	img := simpleImage(t, "x", "x:1")
	img.layers = append(img.layers, tarball(t, file{name: "more", body: "more"}))
	load(t, s, dockerArchive(t, []testImage{img}))
	got, err := s.History(t.Context(), "x:1")
	assert.NilError(t, err)
	at := int64(1767323045)
	assert.DeepEqual(t, got, []image.HistoryResponseItem{
		{ID: img.id(t).String(), CreatedBy: "CMD", Created: at, Tags: []string{"x:1"}},
		{ID: "<missing>", CreatedBy: "layer 1", Created: at, Size: int64(len(img.layers[1]))},
		{ID: "<missing>", CreatedBy: "layer 0", Created: at, Size: int64(len(img.layers[0]))},
	})
}

func TestTag(t *testing.T) {
	s := openStore(t, nil)
	a, b := simpleImage(t, "a", "a:1"), simpleImage(t, "b", "b:1")
	load(t, s, dockerArchive(t, []testImage{a, b}))
	assert.NilError(t, s.Tag(t.Context(), "a:1", "example/bb"))
	got, err := s.Resolve(t.Context(), "a:1")
	assert.NilError(t, err)
	assert.DeepEqual(t, got.RepoTags, []string{"a:1", "example/bb:latest"})

	assert.NilError(t, s.Tag(t.Context(), "b:1", "a:1")) // moves it
	got, err = s.Resolve(t.Context(), "a:1")
	assert.NilError(t, err)
	assert.Equal(t, got.ID, b.id(t))

	err = s.Tag(t.Context(), "a:1", "x@sha256:"+zeros64)
	assert.ErrorContains(t, err, "refusing to create a tag with a digest reference")
	assert.Assert(t, errdefs.IsInvalidArgument(err))
	assert.Assert(t, errdefs.IsInvalidArgument(s.Tag(t.Context(), "a:1", "UPPER")))
	assert.Assert(t, errdefs.IsNotFound(s.Tag(t.Context(), "c:1", "d:1")))
}

func TestRemove(t *testing.T) {
	used := func(name string, running bool) InUse {
		return func(string) (string, bool, bool) { return name, running, true }
	}
	for _, tc := range []struct {
		name  string
		tags  []string
		ref   string // "" is the ID
		force bool
		inUse InUse
		want  []string // "U x" untagged, "D" the image, "L" its layer
		err   string
	}{
		{name: "last name", tags: []string{"a:1"}, ref: "a:1", want: []string{"U a:1", "D", "L"}},
		{name: "one of two names", tags: []string{"a:1", "b:1"}, ref: "a:1", want: []string{"U a:1"}},
		{name: "by ID", tags: []string{"a:1"}, want: []string{"U a:1", "D", "L"}},
		{name: "without name", want: []string{"D", "L"}},
		{name: "by ID with two names", tags: []string{"a:1", "b:1"}, err: "(must be forced) - image is referenced in multiple repositories"},
		{name: "by ID with two names by force", tags: []string{"a:1", "b:1"}, force: true, want: []string{"U a:1", "U b:1", "D", "L"}},
		{
			name: "last name while used", tags: []string{"a:1"}, ref: "a:1", inUse: used("web", false),
			err: `conflict: unable to remove repository reference "a:1" (must force) - container web is using its referenced image `,
		},
		{name: "one of two names while used", tags: []string{"a:1", "b:1"}, ref: "a:1", inUse: used("web", true), want: []string{"U a:1"}},
		{name: "by ID while used", tags: []string{"a:1"}, inUse: used("web", false), err: "(must be forced) - image is being used by stopped container web"},
		{name: "by ID while running", tags: []string{"a:1"}, force: true, inUse: used("web", true), err: "(cannot be forced) - image is being used by running container web"},
		{name: "last name while running by force", tags: []string{"a:1"}, ref: "a:1", force: true, inUse: used("web", true), want: []string{"U a:1"}},
		{name: "by ID while used by force", tags: []string{"a:1"}, force: true, inUse: used("web", false), want: []string{"U a:1", "D", "L"}},
		{name: "not there", ref: "zzz", err: "No such image: zzz:latest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, nil)
			img := simpleImage(t, "a", tc.tags...)
			load(t, s, dockerArchive(t, []testImage{img}))
			ref := tc.ref
			if ref == "" {
				ref = img.id(t).Encoded()[:12]
			}
			got, err := s.Remove(t.Context(), ref, tc.force, tc.inUse)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				assert.Assert(t, errdefs.IsConflict(err) || errdefs.IsNotFound(err))
				assert.Equal(t, len(got), 0)
				return
			}
			assert.NilError(t, err)
			words := []string{}
			for _, g := range got {
				switch {
				case g.Untagged != "":
					words = append(words, "U "+g.Untagged)
				case g.Deleted == img.id(t).String():
					words = append(words, "D")
				case g.Deleted == digest.FromBytes(img.layers[0]).String():
					words = append(words, "L")
				default:
					t.Errorf("unexpected %+v", g)
				}
			}
			assert.DeepEqual(t, words, tc.want)
			assertClean(t, s)
		})
	}
}

func TestRemoveKeepsCommonLayers(t *testing.T) {
	s := openStore(t, nil)
	a, b := simpleImage(t, "a", "a:1"), simpleImage(t, "b", "b:1")
	b.layers = append([][]byte{a.layers[0]}, b.layers...)
	load(t, s, dockerArchive(t, []testImage{a, b}))
	got, err := s.Remove(t.Context(), "b:1", false, nil)
	assert.NilError(t, err)
	assert.Equal(t, len(got), 3) // name, image, one layer
	ins, err := s.Inspect(t.Context(), "a:1")
	assert.NilError(t, err)
	assert.Equal(t, ins.Size, int64(len(a.layers[0])))
	assertClean(t, s)
}

func TestImport(t *testing.T) {
	s := openStore(t, nil)
	layer := tarball(t, file{name: "etc/"}, file{name: "etc/content", body: "hello"})
	var m messages
	id, err := s.Import(t.Context(), bytes.NewReader(gzipped(t, layer)), ImportOptions{
		Ref: "example/imported", Message: "from a tape",
		Changes: []string{
			`CMD ["/bin/sh", "-l"]`, "ENTRYPOINT exec top -b", `ENV A=1 B="two words"`, "ENV A 2", "LABEL k=v",
			"EXPOSE 80 53/udp", "VOLUME /v", "WORKDIR /w", "USER me", "STOPSIGNAL SIGINT", "onbuild RUN x",
		},
	}, m.add)
	assert.NilError(t, err)
	assert.Equal(t, m.all[len(m.all)-1].Status, id.String())
	ins, err := s.Inspect(t.Context(), "example/imported:latest")
	assert.NilError(t, err)
	assert.Equal(t, ins.ID, id.String())
	assert.Equal(t, ins.Comment, "from a tape")
	c := ins.Config
	assert.DeepEqual(t, c.Cmd, []string{"/bin/sh", "-l"})
	assert.DeepEqual(t, c.Entrypoint, []string{"/bin/sh", "-c", "exec top -b"})
	assert.DeepEqual(t, c.Env, []string{"B=two words", "A=2"})
	assert.DeepEqual(t, c.Labels, map[string]string{"k": "v"})
	assert.DeepEqual(t, c.ExposedPorts, map[string]struct{}{"80/tcp": {}, "53/udp": {}})
	assert.DeepEqual(t, c.Volumes, map[string]struct{}{"/v": {}})
	assert.Equal(t, c.WorkingDir+c.User+c.StopSignal, "/wmeSIGINT")
	assert.DeepEqual(t, c.OnBuild, []string{"RUN x"})
	assert.DeepEqual(t, ins.RootFS.Layers, []string{digest.FromBytes(layer).String()})
	assertClean(t, s)
}

func TestImportRefuses(t *testing.T) {
	layer := tarball(t, file{name: "x", body: "x"})
	for name, tc := range map[string]struct {
		data []byte
		o    ImportOptions
		want string
	}{
		"no tar":        {data: bytes.Repeat([]byte("no tar "), 200), want: "not a tar archive"},
		"leaves root":   {data: tarball(t, file{name: "../x", body: "x"}), want: "leaves the root filesystem"},
		"bad name":      {data: layer, o: ImportOptions{Ref: "UPPER"}, want: "invalid reference format"},
		"RUN":           {data: layer, o: ImportOptions{Changes: []string{"RUN rm -rf /"}}, want: "RUN is not a valid change command"},
		"no value":      {data: layer, o: ImportOptions{Changes: []string{"CMD"}}, want: `change "CMD" has no value`},
		"endless quote": {data: layer, o: ImportOptions{Changes: []string{`ENV A="x`}}, want: "quote that does not end"},
		"no port":       {data: layer, o: ImportOptions{Changes: []string{"EXPOSE http"}}, want: `"http" is no port`},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, nil)
			_, err := s.Import(t.Context(), bytes.NewReader(tc.data), tc.o, nil)
			assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
			assert.ErrorContains(t, err, tc.want)
			assertEmpty(t, s)
		})
	}
}
