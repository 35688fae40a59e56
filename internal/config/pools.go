package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// AddressPool is a part of the address space that the subnets of networks are cut from.
type AddressPool struct {
	Base netip.Prefix
	Size int // the length of a subnet's prefix
}

// addressPool is one of default-address-pools: a table as in daemon.json, or the text of Docker's flag.
var addressPool = kind[AddressPool]{
	name: "address pool",
	want: `like { base = "10.32.0.0/16", size = 24 }, or the same as a string, "base=10.32.0.0/16,size=24"`,
	flag: asText,
	parse: func(v any) (AddressPool, error) {
		switch v := v.(type) {
		case map[string]any:
			return parsePool(v)
		case string:
			table := map[string]any{}
			for part := range strings.SplitSeq(v, ",") {
				key, value, _ := strings.Cut(part, "=")
				table[key] = asNumber(value)
			}
			return parsePool(table)
		}
		return AddressPool{}, wrongType(v)
	},
	print: func(p AddressPool) string {
		return fmt.Sprintf("{ base = %s, size = %d }", quote(p.Base.String()), p.Size)
	},
}

func parsePool(table map[string]any) (AddressPool, error) {
	for key := range table {
		if key != "base" && key != "size" {
			return AddressPool{}, fmt.Errorf("%s is not known: a pool has base and size", quote(key))
		}
	}
	text, ok := table["base"].(string)
	if !ok {
		return AddressPool{}, fmt.Errorf("a pool needs a base")
	}
	base, err := parseSubnet(text)
	if err != nil {
		return AddressPool{}, err
	}
	size, ok := table["size"].(int64)
	if !ok {
		return AddressPool{}, fmt.Errorf("a pool needs a size: the length of a subnet's prefix")
	}
	if size < int64(base.Bits()) || size > 30 {
		return AddressPool{}, fmt.Errorf("the size %s is out of range: %d to 30", strconv.FormatInt(size, 10), base.Bits())
	}
	return AddressPool{base, int(size)}, nil
}

// subnetOrNone is an IPv4 network; "" is none.
var subnetOrNone = via(text(`an IPv4 network like "192.168.84.128/25", or ""`, func(string) error { return nil }),
	func(s string) (netip.Prefix, error) {
		if s == "" {
			return netip.Prefix{}, nil
		}
		return parseSubnet(s)
	}, func(p netip.Prefix) string {
		if !p.IsValid() {
			return ""
		}
		return p.String()
	})

func parseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 {
		return p, fmt.Errorf("%s is not an IPv4 network of /8 or smaller", quote(s))
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s is an address in a network: that is %s", quote(s), quote(p.Masked().String()))
	}
	return p, nil
}
