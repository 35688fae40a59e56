package containers

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// sameRecord compares Records by what is saved of them.
var sameRecord = cmp.Options{portCmp, addrCmp, cmpopts.IgnoreUnexported(Record{}), cmpopts.EquateEmpty()}

func encoded(t *testing.T, r Record) []byte {
	t.Helper()
	data, err := r.encode()
	assert.NilError(t, err)
	return data
}

// changed is a Record's JSON with fields set.
func changed(t *testing.T, data []byte, fields map[string]any) []byte {
	t.Helper()
	var all map[string]any
	assert.NilError(t, json.Unmarshal(data, &all))
	for name, value := range fields {
		all[name] = value
	}
	data, err := json.Marshal(all)
	assert.NilError(t, err)
	return data
}

func TestRecordRoundTrip(t *testing.T) {
	r := shownRecord()
	data := encoded(t, r)
	got, err := parseRecord(data)
	assert.NilError(t, err)
	r.Schema = Schema{schemaMajor, schemaMinor}
	assert.Check(t, is.DeepEqual(*got, r, sameRecord))
	assert.Check(t, is.Equal(string(encoded(t, *got)), string(data)))
}

func TestRecordKeepsWhatANewerMinorWrote(t *testing.T) {
	data := changed(t, encoded(t, shownRecord()), map[string]any{
		"schema": Schema{schemaMajor, schemaMinor + 1},
		"colour": map[string]any{"name": "blue", "depth": 3},
	})
	r, err := parseRecord(data)
	assert.NilError(t, err)
	r.Name = "renamed"
	r.Run = nil

	var all map[string]any
	assert.NilError(t, json.Unmarshal(encoded(t, *r), &all))
	assert.Check(t, is.DeepEqual(all["colour"], map[string]any{"name": "blue", "depth": 3.0}))
	assert.Check(t, is.Equal(all["name"], "renamed"))
	_, there := all["run"]
	assert.Check(t, !there, "what is no more must not come back")
	// It is this version's form now: the newer one must not take its own fields for up to date.
	assert.Check(t, is.DeepEqual(all["schema"], map[string]any{"major": float64(schemaMajor), "minor": float64(schemaMinor)}))
}

func TestRecordOfAnotherSchema(t *testing.T) {
	for _, s := range []Schema{{schemaMajor + 1, 0}, {schemaMajor, schemaMinor + 2}, {0, 9}, {schemaMajor, schemaMinor - 2}} {
		want := shownRecord()
		// Nothing but what the error is about may be relied on: the rest may have any form.
		data := changed(t, encoded(t, want), map[string]any{"schema": s, "config": "a string now", "status": []int{1}})
		r, err := parseRecord(data)
		var schema *SchemaError
		assert.Assert(t, errors.As(err, &schema), "%v: %v", s, err)
		assert.Check(t, is.Equal(schema.Found, s))
		assert.Check(t, is.Contains(err.Error(), "schema "+s.String()))
		assert.Check(t, is.Equal(r.ID, want.ID))
		assert.Check(t, is.Equal(r.Name, want.Name))
		assert.Check(t, r.Created.Equal(want.Created))
	}
}

func TestRecordCorrupted(t *testing.T) {
	whole := encoded(t, shownRecord())
	for name, data := range map[string][]byte{
		"empty":            {},
		"torn":             whole[:len(whole)/2],
		"not JSON":         []byte("\x00\x00\x00"),
		"null":             []byte("null"),
		"a list":           []byte("[]"),
		"no version":       changed(t, whole, map[string]any{"schema": nil}),
		"no ID":            changed(t, whole, map[string]any{"id": ""}),
		"an ID that walks": changed(t, whole, map[string]any{"id": "../../etc"}),
		"no configuration": changed(t, whole, map[string]any{"config": nil}),
		"no host config":   changed(t, whole, map[string]any{"hostConfig": nil}),
		"wrong types":      changed(t, whole, map[string]any{"status": "running"}),
	} {
		r, err := parseRecord(data)
		assert.Check(t, err != nil, name)
		assert.Check(t, r != nil, name)
	}
}

func TestSavedStatusForgetsNothing(t *testing.T) {
	var s Status
	fillIn(t, reflect.ValueOf(&s).Elem())
	want := s
	want.Reason = "" // the one thing that is found anew
	assert.Check(t, is.DeepEqual(saved(s).live(), want))

	data, err := json.Marshal(saved(s))
	assert.NilError(t, err)
	var read SavedStatus
	assert.NilError(t, json.Unmarshal(data, &read))
	assert.Check(t, is.DeepEqual(read.live(), want), "it is forgotten on disk")
}

// fillIn gives every field a value that is not zero, and of its own.
func fillIn(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch value := f.Interface().(type) {
		case time.Time:
			f.Set(reflect.ValueOf(noon.Add(time.Duration(i) * time.Second)))
		case bool:
			f.SetBool(true)
		case int:
			f.SetInt(int64(i + 1))
		case string, container.ContainerState:
			f.SetString(name)
		default:
			t.Fatalf("field %s has type %T: teach this test about it", name, value)
		}
	}
}

func TestRecordsSaveAndList(t *testing.T) {
	rs := records{filepath.Join(t.TempDir(), "containers"), t.TempDir()}
	none, err := rs.list()
	assert.NilError(t, err)
	assert.Check(t, is.Len(none, 0), "there is no directory before the first container")

	good := shownRecord()
	assert.NilError(t, rs.save(&good))
	info, err := os.Stat(rs.path(good.ID))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(info.Mode().Perm(), os.FileMode(0o600)))
	good.Name = "renamed"
	assert.NilError(t, rs.save(&good), "it replaces the one before")

	write := func(id string, data []byte) {
		assert.NilError(t, os.MkdirAll(filepath.Join(rs.dir, id), 0o700))
		if data != nil {
			assert.NilError(t, os.WriteFile(rs.path(id), data, 0o600))
		}
	}
	write(longID("2"), []byte("torn"))
	write(longID("3"), nil)
	write(longID("4"), encoded(t, good)) // a copy of another container's
	write("not-an-id", []byte("{}"))

	all, err := rs.list()
	assert.NilError(t, err)
	byID := map[string]found{}
	for _, f := range all {
		assert.Check(t, f.record != nil)
		byID[f.id[:1]] = f
	}
	assert.Assert(t, is.Len(all, 4))
	assert.NilError(t, byID["1"].err)
	assert.Check(t, is.Equal(byID["1"].record.Name, "renamed"))
	assert.Check(t, is.ErrorContains(byID["2"].err, "put "+rs.path(longID("2"))+" right"))
	assert.Check(t, is.ErrorIs(byID["3"].err, fs.ErrNotExist))
	assert.Check(t, is.ErrorContains(byID["4"].err, "it is that of container"))
}

func TestIsID(t *testing.T) {
	for s, want := range map[string]bool{
		longID("0123456789abcdef"): true,
		longID("A"):                false,
		longID("/"):                false,
		longID("1")[1:]:            false,
		strings.Repeat("é", 32):    false,
		"":                         false,
	} {
		assert.Check(t, is.Equal(isID(s), want), "%q", s)
	}
}

// FuzzRecord holds that no file makes parseRecord panic, and that what it takes
// is written back as it was read.
func FuzzRecord(f *testing.F) {
	r := shownRecord()
	data, err := r.encode()
	assert.NilError(f, err)
	f.Add(data)
	f.Add([]byte(`{"schema":{"major":1,"minor":1},"id":"` + longID("1") + `","config":{},"hostConfig":{},"more":[1,2]}`))
	f.Add([]byte(`{"schema":{"major":2}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if r == nil {
			t.Fatal("no Record")
		}
		if err != nil {
			return
		}
		written, err := r.encode()
		assert.NilError(t, err)
		again, err := parseRecord(written)
		assert.NilError(t, err, "%s", written)
		rewritten, err := again.encode()
		assert.NilError(t, err)
		assert.Equal(t, string(rewritten), string(written))
		// Looking at it does not panic either.
		_ = summary(*r, r.Status.live(), noon)
	})
}
