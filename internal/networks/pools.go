package networks

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Pool is a part of the address space that subnets are cut from, for networks that name none.
type Pool struct {
	Base netip.Prefix
	Size int // the length of a subnet's prefix
}

// DefaultPools are Docker's, but for 172.17.0.0/16, which is the bridge of a Docker that may run beside.
func DefaultPools() []Pool {
	var pools []Pool
	for second := byte(18); second < 32; second++ {
		pools = append(pools, Pool{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, second, 0, 0}), 16), 16})
	}
	return append(pools, Pool{netip.MustParsePrefix("192.168.0.0/16"), 20})
}

// choose finds the first subnet of the pools that overlaps nothing that is taken.
func choose(pools []Pool, taken []netip.Prefix) (netip.Prefix, error) {
	for _, p := range pools {
		if !p.Base.Addr().Is4() {
			continue
		}
		for s := netip.PrefixFrom(p.Base.Masked().Addr(), p.Size); p.Base.Contains(s.Addr()); {
			other := overlapping(s, taken)
			if !other.IsValid() {
				return s, nil
			}
			// What lies within a larger one that is taken need not be tried.
			if other.Bits() < s.Bits() {
				s = netip.PrefixFrom(lastOf(other), s.Bits()).Masked()
			}
			next := lastOf(s).Next()
			if !next.IsValid() {
				break
			}
			s = netip.PrefixFrom(next, p.Size)
		}
	}
	return netip.Prefix{}, &kindError{
		"all predefined address pools have been fully subnetted: name a --subnet, remove networks, or add to default-address-pools",
		errdefs.ErrResourceExhausted,
	}
}

// chooseUnique makes a subnet of the addresses that anybody may use without asking (RFC 4193): 40 bits of chance make it
// nobody else's.
func chooseUnique() netip.Prefix {
	var b [16]byte
	b[0] = 0xfd
	_, _ = rand.Read(b[1:6]) // never fails (crypto/rand)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// overlapping is what of the taken ones overlaps a subnet; the zero value if nothing does.
func overlapping(s netip.Prefix, taken []netip.Prefix) netip.Prefix {
	i := slices.IndexFunc(taken, s.Overlaps)
	if i < 0 {
		return netip.Prefix{}
	}
	return taken[i].Masked()
}

// checkOverlap refuses a subnet that another network has, in Docker's words.
func checkOverlap(s netip.Prefix, others []netip.Prefix) error {
	if o := overlapping(s, others); o.IsValid() {
		return &kindError{
			fmt.Sprintf("invalid pool request: Pool overlaps with other one on this address space: %s with %s", s, o),
			errdefs.ErrPermissionDenied,
		}
	}
	return nil
}
