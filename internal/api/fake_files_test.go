package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
)

// The files of every fake container are one, /hello with the content "hello", and /broken, whose archive breaks off.

func (f *fakeContainers) ArchiveStat(_ context.Context, ref, path string) (container.PathStat, error) {
	if _, err := f.get(ref); err != nil {
		return container.PathStat{}, err
	}
	return container.PathStat{Name: strings.TrimPrefix(path, "/"), Size: 5, Mode: 0o644, Mtime: time.Unix(1, 0).UTC()}, nil
}

func (f *fakeContainers) Archive(ctx context.Context, ref, path string) (*containers.Archive, error) {
	stat, err := f.ArchiveStat(ctx, ref, path)
	if err != nil {
		return nil, err
	}
	a := &containers.Archive{Stat: stat, Close: func() error { return nil }}
	a.Write = func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "hello")
		if path == "/broken" {
			err = errors.New("the disk is on fire")
		}
		return err
	}
	return a, nil
}

func (f *fakeContainers) Extract(_ context.Context, ref, path string, r io.Reader, o containers.ExtractOptions) error {
	if _, err := f.get(ref); err != nil {
		return err
	}
	content, err := io.ReadAll(r)
	f.extracted = extracted{path, string(content), o}
	return err
}

func (f *fakeContainers) Export(ctx context.Context, ref string) (*containers.Archive, error) {
	return f.Archive(ctx, ref, "/")
}

func (f *fakeContainers) Changes(_ context.Context, ref string) ([]container.FilesystemChange, error) {
	_, err := f.get(ref)
	return []container.FilesystemChange{{Path: "/hello", Kind: container.ChangeAdd}}, err
}

func (f *fakeContainers) Commit(_ context.Context, ref string, o containers.CommitOptions) (string, error) {
	_, err := f.get(ref)
	f.committed = o
	return "sha256:0123", err
}

func (f *fakeContainers) Prune(_ context.Context, filters containers.Filters) (container.PruneReport, error) {
	f.pruned = filters
	return container.PruneReport{ContainersDeleted: []string{"abc"}, SpaceReclaimed: 5}, nil
}

// extracted is what Extract was asked.
type extracted struct {
	path, content string
	options       containers.ExtractOptions
}
