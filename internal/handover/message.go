package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"lrd/internal/output"
)

// Version is that of the protocol and of the standby's record. Another one is refused, by either side.
const Version = 1

// Where the standby is found. Its unit makes the directories.
const (
	// Socket is where it listens.
	Socket = "/run/lrd/standby.sock"
	// Record is the file that says what it holds, and is not there while it holds nothing.
	Record = "/run/lrd/standby/held.json"
	// Unit is its unit.
	Unit = "lrd-standby.service"
)

// What a descriptor of a container, or of a command in one, is: the part of its name after the ID and a dot.
const (
	Stdin    = "stdin"            // the FIFO that it reads
	Stdout   = "stdout"           // the FIFO that it writes as standard output
	Stderr   = "stderr"           // likewise standard error
	Console  = "console"          // the master of its pseudo terminal
	Listener = "console-listener" // where the runtime delivers a console
	Via      = "console-pipe"     // between console and file; see output.Log.DrainThrough
)

// SessionPrefix begins the name of a client's connection; the session's ID follows.
const SessionPrefix = "session."

// Name is the name of a descriptor of the container, or the command, with that ID.
func Name(id, what string) string { return id + "." + what }

// A Log is a store of output.
type Log struct {
	ID      string         `json:"id"` // its descriptors are named by it
	Dir     string         `json:"dir"`
	Options output.Options `json:"options"` // as far as it is plain data
}

// A File is a descriptor with its name.
type File struct {
	Name string
	File *os.File
	// New says that the standby has taken it in by itself, in place of what it was passed under that name.
	New bool
}

// A Holding is what is passed.
type Holding struct {
	// Drain says that Logs are to be drained and sessions served. Else the Files are kept, and nothing is done with them.
	Drain bool
	// Sessions is the directory of the sessions whose connections are among Files (sessions.Options.Dir).
	Sessions string
	Logs     []Log
	Files    []File
}

// What the daemon asks.
const (
	askHold    = "hold"
	askRelease = "release" // has no answer
	askBegin   = "begin"
	askGive    = "give"
	askTaken   = "taken"
)

// packet is what is sent, with as many descriptors as it has names.
type packet struct {
	Version int      `json:"version"`
	Ask     string   `json:"ask,omitempty"`
	Names   []string `json:"names,omitempty"`

	// Of hold.
	Drain    bool   `json:"drain,omitempty"`
	Sessions string `json:"sessions,omitempty"`
	Logs     []Log  `json:"logs,omitempty"`
	// Of release.
	ID string `json:"id,omitempty"`
	// Of an answer.
	New   []bool `json:"new,omitempty"`  // for each of Names
	More  bool   `json:"more,omitempty"` // another packet belongs to this answer
	Error string `json:"error,omitempty"`
}

// errVersion says that the other side is of another version of lrd.
var errVersion = errors.New("it speaks another version of the protocol")

func decode(data []byte) (p packet, err error) {
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("cannot understand the packet: %w", err)
	}
	if p.Version != Version {
		return p, fmt.Errorf("%w: %d, and not %d", errVersion, p.Version, Version)
	}
	return p, nil
}
