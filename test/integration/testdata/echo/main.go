// Command echo answers lines in a container: each with "got " before it.
//
//	echo serve tcp|udp|sctp ADDRESS
//	echo ask tcp|udp|sctp ADDRESS LINE
//	echo serve http ADDRESS            answers each request with the path that it is for
//	echo get unix SOCKET PATH          asks for a path over HTTP
//
// The busybox of some distributions has no server for udp, and a shell cannot read a datagram.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	what, protocol, address := os.Args[1], os.Args[2], os.Args[3]
	var err error
	switch {
	case what == "ask":
		err = ask(protocol, address, os.Args[4])
	case what == "get":
		err = get(protocol, address, os.Args[4])
	case protocol == "http":
		err = http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.URL.Path) }))
	case protocol == "udp":
		err = serveUDP(address)
	default:
		err = serveStream(protocol, address)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func ask(protocol, address, line string) error {
	conn, err := dial(protocol, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(answer)
	return err
}

func get(protocol, address, path string) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, protocol, address)
	}}}
	r, err := client.Get("http://there" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(os.Stdout, r.Body)
	return err
}

func serveUDP(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = conn.WriteTo(append([]byte("got "), buf[:n]...), from)
	}
}

func serveStream(protocol, address string) error {
	l, err := listen(protocol, address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				fmt.Fprintf(conn, "got %s\n", lines.Text())
			}
		}()
	}
}
