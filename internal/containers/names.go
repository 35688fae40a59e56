package containers

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// The names of containers that nobody has named: an adjective and a thing. No
// word is a person's name, a trade mark or could be said of somebody.
var (
	adjectives = strings.Fields(`
		agile amber ample autumn balmy blue bold brave breezy bright brisk calm
		candid careful cheerful clear clever copper cosy crisp curious dapper
		deep eager early fair fond fresh gentle glad golden green happy hardy
		honest humble jolly keen kind lively lucid mellow merry mighty modest
		neat nimble noble patient plucky proud quick quiet rapid ready round
		silver smooth snowy solid steady sunny`)
	things = strings.Fields(`
		acorn anchor apple badger barley beacon beaver birch bridge brook
		canyon cedar chestnut cliff clover comet coral crane delta dolphin
		dune falcon fern fjord forest garden geyser glacier harbor hazel
		heron island juniper kettle lagoon lantern lark maple marble meadow
		meteor mill moss oak orchard otter pebble pine planet poppy prairie
		quartz reef river robin saddle sparrow spruce summit teapot thistle
		valley walnut willow`)
)

// How many names are tried as they are. There are some four thousand; a host
// where so many tries are taken has so many containers that a number is less
// trouble than the search.
const plainNames = 8

// newName makes up a name that is not taken. When plain ones are, it appends
// a number that gets longer, so that it ends whatever is taken.
func newName(taken func(name string) bool) string {
	numbers := 10
	for try := 0; ; try++ {
		name := adjectives[rand.IntN(len(adjectives))] + "_" + things[rand.IntN(len(things))]
		if try >= plainNames {
			name += strconv.Itoa(rand.IntN(numbers))
			numbers = min(numbers*2, 1<<30)
		}
		if !taken(name) {
			return name
		}
	}
}
