// Command echo answers lines in a container: each with "got " before it.
//
//	echo serve tcp|udp ADDRESS
//	echo ask tcp|udp ADDRESS LINE
//
// The busybox of some distributions has no server for udp, and a shell cannot read a datagram.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"os"
	"time"
)

func main() {
	what, protocol, address := os.Args[1], os.Args[2], os.Args[3]
	var err error
	switch {
	case what == "ask":
		err = ask(protocol, address, os.Args[4])
	case protocol == "udp":
		err = serveUDP(address)
	default:
		err = serveTCP(address)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func ask(protocol, address, line string) error {
	conn, err := net.DialTimeout(protocol, address, time.Second)
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

func serveTCP(address string) error {
	l, err := net.Listen("tcp", address)
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
