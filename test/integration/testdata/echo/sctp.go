package main

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Package net has no sctp. Its sockets, as streams (sctp(7), one-to-one style), behave like those of tcp, for which it takes
// them.

func listen(protocol, address string) (net.Listener, error) {
	if protocol != "sctp" {
		return net.Listen(protocol, address)
	}
	f, err := socket(address, func(fd int, at syscall.Sockaddr) error {
		if err := syscall.Bind(fd, at); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("listen", syscall.Listen(fd, 16))
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

func dial(protocol, address string) (net.Conn, error) {
	if protocol != "sctp" {
		return net.DialTimeout(protocol, address, time.Second)
	}
	f, err := socket(address, func(fd int, at syscall.Sockaddr) error {
		// Also the time that connecting may take.
		patience := syscall.Timeval{Sec: 1}
		if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &patience); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		return os.NewSyscallError("connect", syscall.Connect(fd, at))
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileConn(f)
}

// socket makes an IPv4 socket and lets use begin to use it.
func socket(address string, use func(fd int, at syscall.Sockaddr) error) (*os.File, error) {
	if address[0] == ':' {
		address = "0.0.0.0" + address
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, syscall.IPPROTO_SCTP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	if err := use(fd, &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
