package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestPackagesSayWhatTheyAre: a package's comment is its contract, for a package of nothing but tests too.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment (doc.go; for a command, main.go)", p.path())
			continue
		}
		if begin := "Package " + p.Name + " "; p.Name != "main" && !strings.HasPrefix(p.Doc, begin) {
			t.Errorf("the comment of %s begins with %q, not with %q", p.path(), strings.SplitAfter(p.Doc, " ")[0], begin)
		}
		if p.Name != "main" && !slices.Contains(p.GoFiles, "doc.go") {
			t.Errorf("%s has no doc.go", p.path())
		}
	}
}

// TestHackingNamesEveryPackage: a newcomer finds one line for each directory.
func TestHackingNamesEveryPackage(t *testing.T) {
	pkgs := packages(t)
	data, err := os.ReadFile(filepath.Join(root(t), "HACKING.md"))
	assert.NilError(t, err)
	for _, p := range pkgs {
		if !strings.Contains(string(data), "`"+p.path()+"`") {
			t.Errorf("HACKING.md has no line for `%s`", p.path())
		}
	}
}

// TestHackingTellsTheImports: its columns "may use" and "may be used by" are those of mayImport.
func TestHackingTellsTheImports(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root(t), "HACKING.md"))
	assert.NilError(t, err)
	names := func(paths []string) string {
		short := make([]string, 0, len(paths))
		for _, p := range paths {
			short = append(short, strings.TrimPrefix(p, "internal/"))
		}
		slices.Sort(short)
		return strings.Join(short, ", ")
	}
	rows := 0
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || !strings.Contains(cells[1], "`internal/") {
			continue
		}
		rows++
		path := strings.Trim(cells[1], " `")
		var users []string
		for user, used := range mayImport {
			if slices.Contains(used, path) {
				users = append(users, user)
			}
		}
		assert.Check(t, is.Equal(strings.TrimSpace(cells[3]), names(mayImport[path])), "what %s may use", path)
		assert.Check(t, is.Equal(strings.TrimSpace(cells[4]), names(users)), "who may use %s", path)
	}
	assert.Assert(t, rows > 10, "the table of HACKING.md has %d rows of packages", rows)
}

// namesOfNothing are names of packages that say where code was put, not what it is about. They only ever grow.
var namesOfNothing = []string{"base", "common", "helper", "helpers", "lib", "misc", "shared", "types", "util", "utils"}

func TestPackagesHaveNames(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(namesOfNothing, p.Name) {
			t.Errorf("%s: name a package after what it is about", p.path())
		}
	}
}

// TestNoContextTODO: whose end ends an operation is decided when it is written. Where nobody's does,
// context.Background says so.
func TestNoContextTODO(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			assert.NilError(t, err)
			ast.Inspect(file, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != "TODO" {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "context" {
					t.Errorf("%s: context.TODO", set.Position(sel.Pos()))
				}
				return true
			})
		}
	}
}

// root is the top of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	assert.NilError(t, err)
	return dir
}
