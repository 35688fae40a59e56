package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"lrd/internal/names"
)

// resolver answers all containers.
type resolver struct {
	dir  string
	log  *slog.Logger
	up   *upstream
	port uint16

	// scanMu lets one reading of the directory happen at a time; it guards guests.
	scanMu sync.Mutex
	guests map[string]*guest

	index atomic.Pointer[index]
	turn  atomic.Uint32 // counts answers, so that several addresses take turns

	serving sync.WaitGroup // of the goroutines that serve guests' sockets
}

func newResolver(dir string, log *slog.Logger) *resolver {
	r := &resolver{dir: dir, log: log, up: newUpstream(hostResolvConf), port: names.Port, guests: map[string]*guest{}}
	r.index.Store(newIndex(nil, nil))
	return r
}

// guest is a container that can ask.
type guest struct {
	r       *resolver
	id      string
	file    stamp // of its file, when it was read
	ns      stamp // of its network namespace, when the sockets were opened
	spec    names.Container
	servers []*dns.Server
	waiting slots // of its questions that wait for other name servers
}

// maxConnections bounds the connections of one container. More of them wait in its own kernel's queue.
const maxConnections = 64

// stamp tells one file from another that has been put in its place.
type stamp struct {
	dev, ino uint64
	mtime    unix.Timespec
}

func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return stamp{st.Dev, st.Ino, st.Mtim}, nil
}

// scan brings everything in line with the directory. What is wrong with one container is in the error, and no reason not to
// serve the others.
func (r *resolver) scan() error {
	r.scanMu.Lock()
	defer r.scanMu.Unlock()
	files, ended, err := names.Listed(r.dir)
	if err != nil {
		return err
	}
	var errs []error
	for id, g := range r.guests {
		if !slices.Contains(files, id) {
			g.close()
			delete(r.guests, id)
		}
	}
	for _, id := range files {
		if err := r.read(id); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	all := make([]names.Container, 0, len(r.guests))
	for _, g := range r.guests {
		all = append(all, g.spec)
	}
	r.index.Store(newIndex(all, ended))
	return errors.Join(errs...)
}

// read takes a container's file in, if it is new or another one, and opens its sockets, if they are not in its namespace.
func (r *resolver) read(id string) error {
	file, err := stampOf(r.dir + "/" + id + ".json")
	if err != nil {
		return err
	}
	g := r.guests[id]
	if g == nil {
		g = &guest{r: r, id: id, waiting: make(slots, maxForwardedGuest)}
	}
	if g.file != file {
		if g.spec, err = names.Read(r.dir, id); err != nil {
			return err
		}
		g.file = file
		r.guests[id] = g
	}
	ns, err := stampOf(g.spec.NetNS)
	if err != nil {
		g.close()
		return fmt.Errorf("cannot find the network namespace of container %s: %w", id, err)
	}
	// A namespace's time of change says when somebody looked first.
	ns.mtime = unix.Timespec{}
	if len(g.servers) > 0 && g.ns == ns {
		return nil
	}
	g.close()
	if err := g.open(); err != nil {
		return err
	}
	g.ns = ns
	return nil
}

// open opens a guest's sockets and begins to answer.
func (g *guest) open() error {
	at := netip.AddrPortFrom(names.Server, g.r.port)
	var udp *net.UDPConn
	var tcp *net.TCPListener
	err := inNetNS(g.spec.NetNS, func() (err error) {
		if udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		if tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err != nil {
			_ = udp.Close()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot listen for container %s: %w", g.id, err)
	}
	g.servers = []*dns.Server{{PacketConn: udp, Handler: g}, {Listener: netutil.LimitListener(tcp, maxConnections), Handler: g}}
	for _, s := range g.servers {
		g.r.serving.Go(func() {
			if err := s.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				g.r.log.Error("Cannot go on answering a container", "container", g.id, "error", err)
			}
		})
	}
	return nil
}

// close closes a guest's sockets. Who serves them ends by that, when the questions that are being answered are: nobody
// waits here for other people's name servers.
func (g *guest) close() {
	for _, s := range g.servers {
		// Not Shutdown, which fails for a server that has not come to its first question yet.
		if s.PacketConn != nil {
			_ = s.PacketConn.Close()
		} else {
			_ = s.Listener.Close()
		}
	}
	g.servers = nil
}

// close ends all guests, and waits for who serves them.
func (r *resolver) close() {
	r.scanMu.Lock()
	defer r.scanMu.Unlock()
	for _, g := range r.guests {
		g.close()
	}
	r.guests = map[string]*guest{}
	r.serving.Wait()
}

// ServeDNS answers one question of a container.
func (g *guest) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	_, isTCP := w.RemoteAddr().(*net.TCPAddr)
	reply := g.r.reply(g.id, question, g.waiting, isTCP)
	if !isTCP {
		size := dns.MinMsgSize
		if opt := question.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		reply.Truncate(size)
	}
	if err := w.WriteMsg(reply); err != nil && !errors.Is(err, net.ErrClosed) {
		g.r.log.Debug("Cannot answer", "container", g.id, "error", err)
	}
}

// reply is the answer to a container's question. If that is for another name server, it takes one of the container's slots
// meanwhile.
func (r *resolver) reply(asker string, question *dns.Msg, waiting slots, tcp bool) *dns.Msg {
	reply := new(dns.Msg)
	if question.Opcode != dns.OpcodeQuery || len(question.Question) != 1 {
		return reply.SetRcode(question, dns.RcodeNotImplemented)
	}
	x := r.index.Load()
	records, known := x.answer(asker, question.Question[0], int(r.turn.Add(1)))
	if known {
		reply.SetReply(question)
		reply.RecursionAvailable = true
		reply.Answer = records
		if opt := question.IsEdns0(); opt != nil {
			reply.SetEdns0(dns.DefaultMsgSize, false)
		}
		return reply
	}
	c, ok := x.containers[asker]
	if !ok || c.Internal {
		return reply.SetRcode(question, dns.RcodeNameError)
	}
	err := errBusy
	var answer *dns.Msg
	if waiting.take() {
		answer, err = r.up.ask(question, c, tcp)
		waiting.giveBack()
	}
	if err != nil {
		r.log.Debug("No name server answers", "container", asker, "name", question.Question[0].Name, "error", err)
		return reply.SetRcode(question, dns.RcodeServerFailure)
	}
	return answer
}
