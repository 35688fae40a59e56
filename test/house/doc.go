// Package house holds tests of how the repository is built, rather than of what it does: who may import whom,
// that every package says what it is, and a few habits that are easier to keep than to regain.
//
// The rules are tables at the top of the test files, each with its reason. A change of a rule is a change of the
// design; it belongs into the same commit as the code that needs it.
package house
