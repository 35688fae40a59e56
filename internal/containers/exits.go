package containers

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"lrd/internal/oci"
	"lrd/internal/units"
)

// exitsFile is the container's own list of how its runs ended, in its runtime
// directory. systemd keeps the status of one run, and of a unit that ends
// cleanly and does not remain it keeps nothing; this fills both gaps for the
// time that the daemon is away. A line is
//
//	INVOCATION_ID SECONDS.NANOSECONDS SERVICE_RESULT EXIT_CODE EXIT_STATUS OOM_KILLS
//
// with the variables that systemd gives to ExecStopPost= (systemd.exec(5)). "-"
// instead of a time says that it is the time of change of a file beside the list,
// with a dash and the invocation after its name.
const exitsFile = "exits"

// unknown stands in it for what systemd has not said.
const unknown = "-"

// exitNote is one line of it.
type exitNote struct {
	invocation string
	at         time.Time // zero from parseExit if it is noted beside the list
	code       int
	oomKills   int // how many of its processes the kernel killed as memory ran out
}

// readExits reads the list, oldest first. Lines that make no sense are left
// out: one may be torn when the machine was. With an error come those before it.
func readExits(path string) ([]exitNote, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var notes []exitNote
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if n, ok := parseExit(sc.Text()); ok {
			if n.at.IsZero() {
				n.at = timeBeside(path, n.invocation)
			}
			notes = append(notes, n)
		}
	}
	return notes, sc.Err()
}

// fileTick is how far the time of a file may be behind: the kernel takes that of its last tick, of which there are at least a hundred a second.
const fileTick = 10 * time.Millisecond

// timeBeside is the time of an exit that is noted beside the list: not before it, so that it is not taken for that of a run before.
func timeBeside(list, invocation string) time.Time {
	now := time.Now()
	info, err := os.Stat(list + "-" + invocation)
	if err != nil || info.ModTime().Add(fileTick).After(now) {
		return now
	}
	return info.ModTime().Add(fileTick)
}

func parseExit(line string) (exitNote, bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 {
		return exitNote{}, false
	}
	n := exitNote{invocation: fields[0]}
	if fields[1] != unknown {
		sec, nsec, _ := strings.Cut(fields[1], ".")
		s, err1 := strconv.ParseInt(sec, 10, 64)
		ns, err2 := strconv.ParseInt(nsec, 10, 64)
		if err1 != nil || err2 != nil || ns < 0 || ns >= int64(time.Second) {
			return exitNote{}, false
		}
		n.at = time.Unix(s, ns)
	}
	kills, err := strconv.Atoi(fields[5])
	if err != nil {
		return exitNote{}, false
	}
	n.oomKills = kills
	switch fields[3] {
	case "exited":
		code, err := strconv.Atoi(fields[4])
		if err != nil {
			return exitNote{}, false
		}
		n.code = code
	case "killed", "dumped":
		sig, err := oci.ParseSignal(fields[4])
		if err != nil {
			return exitNote{}, false
		}
		n.code = 128 + int(sig)
	default: // the unit failed before there was a process to speak of
		return exitNote{}, false
	}
	return n, true
}

// unseen says whether the list ends with a run that cur knows nothing of.
func unseen(cur Status, notes []exitNote) bool {
	if len(notes) == 0 {
		return false
	}
	n := notes[len(notes)-1]
	return n.invocation != cur.InvocationID && n.invocation != unknown && !n.at.Before(cur.StartedAt)
}

// lastExit is the state of a unit that is gone, as far as its list of exits
// tells it: the end of the run that cur knows, or of a later one. Without one, u
// is returned as it is.
func lastExit(u units.State, cur Status, notes []exitNote) units.State {
	later := unseen(cur, notes)
	if len(notes) == 0 || !later && !cur.Running() || ended(u) && !u.ExecMainExit.Before(cur.StartedAt) {
		return u
	}
	n := notes[len(notes)-1]
	if n.at.Before(cur.StartedAt) {
		return u
	}
	u.ActiveState, u.SubState = "inactive", "dead"
	u.ExecMainStart, u.ExecMainPID = cur.StartedAt, uint32(cur.Pid)
	if later {
		// Nobody knows when it began, nor as which process.
		u.InvocationID, u.ExecMainStart, u.ExecMainPID = n.invocation, n.at, uint32(max(cur.Pid, 1))
	}
	u.ExecMainExit = n.at
	u.ExecMainCode, u.ExecMainStatus = cldExited, int32(n.code)
	return u
}
