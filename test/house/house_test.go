package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
)

// module is the path of the module, as go.mod has it.
const module = "lrd/"

// pkg is what is needed of a package as `go list -json` describes it.
type pkg struct {
	ImportPath  string
	Name        string
	Dir         string
	Doc         string
	GoFiles     []string
	Imports     []string
	TestGoFiles []string
	TestImports []string

	XTestGoFiles []string
	XTestImports []string
}

// path is the package's path within the repository.
func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module) }

var list = sync.OnceValues(func() ([]pkg, error) {
	// go test caches a pass until a file or a directory changes that this process has opened; go list's own do not count.
	for _, dir := range []string{"../../cmd", "../../internal", "../../test"} {
		if err := filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,Doc,GoFiles,Imports,TestGoFiles,TestImports,XTestGoFiles,XTestImports", module+"...")
	// The tags of the build, and those behind which some tests are.
	cmd.Env = append(os.Environ(), "GOFLAGS=-tags=containers_image_openpgp,exclude_graphdriver_btrfs,integration,vm")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + "\n" + stderr.String())
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
})

// packages are all packages of the repository.
func packages(t *testing.T) []pkg {
	t.Helper()
	pkgs, err := list()
	assert.NilError(t, err)
	assert.Assert(t, len(pkgs) > 10, "go list found %d packages", len(pkgs))
	return pkgs
}
