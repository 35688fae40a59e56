package containers

import "lrd/internal/networks"

// Member is a container's place in the default bridge.
type Member struct {
	ID, Name string
	Endpoint networks.Endpoint
}

// Members are the running containers that have a place in the default bridge.
func (m *Manager) Members() []Member {
	var members []Member
	for _, c := range m.all() {
		r, s := c.snapshot()
		if s.Running() && r.Run != nil && r.Run.Endpoint != nil && r.Run.Endpoint.IP.IsValid() {
			members = append(members, Member{ID: c.id, Name: r.Name, Endpoint: *r.Run.Endpoint})
		}
	}
	return members
}

// CountByImage tells how many containers were made from an image.
func (m *Manager) CountByImage(imageID string) int64 {
	var n int64
	for _, c := range m.all() {
		if r, _ := c.snapshot(); r.ImageID == imageID {
			n++
		}
	}
	return n
}
