package api

import (
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
)

// This file holds what answers look like to older clients. Each function says which version changed what; the
// changes are those of the API's version history.

// object is a JSON object on its way to an older client.
type object map[string]any

// objectOf turns an answer into an object that fields can be added to and taken from.
func objectOf(v any) (object, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var o object
	return o, json.Unmarshal(text, &o)
}

// child returns the object under key, or an empty one of its own if there is none.
func (o object) child(key string) object {
	if c, ok := o[key].(map[string]any); ok {
		return c
	}
	c := map[string]any{}
	o[key] = c
	return c
}

// streamType: the media type of multiplexed streams came with 1.42; before, both kinds were called raw.
func streamType(v version, tty bool) string {
	if tty || v.before(42) {
		return mediaTypeRaw
	}
	return mediaTypeMultiplexed
}

// waitAnswersAtOnce: since 1.30 the head of the answer says that the wait is registered.
func waitAnswersAtOnce(v version) bool { return !v.before(30) }

// answerJSONBody sends v after a head that may have been sent.
func answerJSONBody(w http.ResponseWriter, v any) error {
	return json.NewEncoder(w).Encode(v)
}

// summariesFor: annotations came with 1.46, the manifest's descriptor with 1.48, the health with 1.52.
func summariesFor(v version, list []container.Summary) []container.Summary {
	out := make([]container.Summary, len(list))
	for i, c := range list {
		if v.before(46) {
			c.HostConfig.Annotations = nil
		}
		if v.before(48) {
			c.ImageManifestDescriptor = nil
		}
		if v.before(52) {
			c.Health = nil
		}
		out[i] = c
	}
	return out
}

// inspectFor: up to 1.51 NetworkSettings had the addresses of the default bridge as fields of its own; up to 1.44 the
// beginning of the container's ID was among its aliases, where docker-compose looks for it.
func inspectFor(v version, c container.InspectResponse) (any, error) {
	if v.before(45) && c.NetworkSettings != nil {
		for name, ep := range c.NetworkSettings.Networks {
			if container.NetworkMode(name).IsUserDefined() && len(c.ID) >= 12 {
				ep = ep.Copy()
				ep.Aliases = append(ep.Aliases, c.ID[:12])
				c.NetworkSettings.Networks[name] = ep
			}
		}
	}
	if v.before(48) {
		c.ImageManifestDescriptor = nil
	}
	if !v.before(52) {
		return c, nil
	}
	o, err := objectOf(c)
	if err != nil {
		return nil, err
	}
	settings := o.child("NetworkSettings")
	bridge := &network.EndpointSettings{}
	if c.NetworkSettings != nil && c.NetworkSettings.Networks[network.NetworkBridge] != nil {
		bridge = c.NetworkSettings.Networks[network.NetworkBridge]
	}
	for key, value := range map[string]any{
		"Bridge":                 "",
		"HairpinMode":            false,
		"LinkLocalIPv6Address":   "",
		"LinkLocalIPv6PrefixLen": 0,
		"SecondaryIPAddresses":   nil,
		"SecondaryIPv6Addresses": nil,
		"EndpointID":             bridge.EndpointID,
		"Gateway":                addr(bridge.Gateway),
		"GlobalIPv6Address":      addr(bridge.GlobalIPv6Address),
		"GlobalIPv6PrefixLen":    bridge.GlobalIPv6PrefixLen,
		"IPAddress":              addr(bridge.IPAddress),
		"IPPrefixLen":            bridge.IPPrefixLen,
		"IPv6Gateway":            addr(bridge.IPv6Gateway),
		"MacAddress":             bridge.MacAddress.String(),
	} {
		settings[key] = value
	}
	if v.before(44) {
		o.child("Config")["MacAddress"] = bridge.MacAddress.String()
	}
	return o, nil
}

// addr writes an address as old clients expect it: nothing for none.
func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// imageSummariesFor: up to 1.43 the size had a second name, up to 1.50 the number of containers was -1 for
// "not counted".
func imageSummariesFor(v version, list []image.Summary) (any, error) {
	list = notNil(list)
	if !v.before(51) {
		return list, nil
	}
	out := make([]any, len(list))
	for i, img := range list {
		img.Containers = -1
		if v.before(48) {
			img.Descriptor = nil
		}
		if !v.before(44) {
			out[i] = img
			continue
		}
		o, err := objectOf(img)
		if err != nil {
			return nil, err
		}
		o["VirtualSize"] = img.Size
		out[i] = o
	}
	return out, nil
}

// imageInspectFor: up to 1.51 some fields were there though they were empty, and some more up to 1.43 and 1.44.
func imageInspectFor(v version, img image.InspectResponse) (any, error) {
	img.RepoTags, img.RepoDigests = notNil(img.RepoTags), notNil(img.RepoDigests)
	if v.before(48) {
		img.Descriptor = nil
	}
	if !v.before(52) {
		return img, nil
	}
	o, err := objectOf(img)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"Parent", "Comment", "DockerVersion", "Author"} {
		if _, ok := o[key]; !ok {
			o[key] = ""
		}
	}
	config := o.child("Config")
	for _, key := range []string{"Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"} {
		if _, ok := config[key]; !ok {
			config[key] = nil
		}
	}
	for _, key := range []string{"User", "WorkingDir"} {
		if config[key] == nil {
			config[key] = ""
		}
	}
	if v.before(45) {
		o["Container"], o["ContainerConfig"] = "", nil
	}
	if v.before(44) {
		o["VirtualSize"] = img.Size
		if img.Created == "" {
			o["Created"] = "0001-01-01T00:00:00Z"
		}
	}
	return o, nil
}

// networksFor: since 1.28 a list of networks does not name the containers in them.
func networksFor(v version, list []network.Inspect) any {
	if v.before(28) {
		return list
	}
	out := make([]network.Summary, len(list))
	for i, n := range list {
		out[i] = network.Summary{Network: n.Network}
	}
	return out
}

// infoFor: up to 1.49 clients warn of iptables settings of bridges that lrd has no use for, unless they are
// told that all is well; expected commits went with 1.49, the registries that may not be pushed to with 1.48,
// the status of runtimes came with 1.44.
func infoFor(v version, info system.Info) (any, error) {
	if v.before(44) {
		for name, rt := range info.Runtimes {
			info.Runtimes[name] = system.RuntimeWithStatus{Runtime: rt.Runtime}
		}
	}
	if v.before(49) {
		info.FirewallBackend = nil
	}
	if !v.before(50) {
		return info, nil
	}
	o, err := objectOf(info)
	if err != nil {
		return nil, err
	}
	o["BridgeNfIptables"], o["BridgeNfIp6tables"] = true, true
	if v.before(49) {
		for _, key := range []string{"ContainerdCommit", "RuncCommit", "InitCommit"} {
			o.child(key)["Expected"] = o.child(key)["ID"]
		}
	}
	if v.before(48) {
		registry := o.child("RegistryConfig")
		registry["AllowNondistributableArtifactsCIDRs"] = nil
		registry["AllowNondistributableArtifactsHostnames"] = nil
	}
	if v.before(42) {
		// Kernel memory limits are gone from cgroup v2; clients of then warn of their absence.
		o["KernelMemory"], o["KernelMemoryTCP"] = true, true
	}
	return o, nil
}

// oldEvent is an event with the fields that the API dropped in 1.22, but clients read until docker 25.
type oldEvent struct {
	eventtypes.Message
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
}

// eventFor: up to 1.51 events of containers and images had their old fields too.
func eventFor(v version, m eventtypes.Message) any {
	if m.Actor.Attributes == nil {
		m.Actor.Attributes = map[string]string{}
	}
	if !v.before(52) {
		return m
	}
	switch m.Type {
	case eventtypes.ContainerEventType:
		return oldEvent{Message: m, Status: string(m.Action), ID: m.Actor.ID, From: m.Actor.Attributes["image"]}
	case eventtypes.ImageEventType:
		return oldEvent{Message: m, Status: string(m.Action), ID: m.Actor.ID}
	default:
		return m
	}
}

// diskUsageFor: up to 1.52 the answer was lists and one sum, since 1.52 it is a summary of each kind, with
// the items only if they are asked for.
func diskUsageFor(du system.DiskUsage, verbose, old bool) (any, error) {
	o := object{}
	if old {
		if u := du.ImageUsage; u != nil {
			o["LayersSize"], o["Images"] = u.TotalSize, notNil(u.Items)
		}
		if u := du.ContainerUsage; u != nil {
			o["Containers"] = notNil(u.Items)
		}
		if u := du.VolumeUsage; u != nil {
			o["Volumes"] = notNil(u.Items)
		}
		if du.BuildCacheUsage != nil {
			o["BuildCache"] = []any{}
		}
	}
	if !verbose {
		dropItems(&du)
	}
	summary, err := objectOf(du)
	if err != nil {
		return nil, err
	}
	for key, value := range summary {
		o[key] = value
	}
	return o, nil
}

func dropItems(du *system.DiskUsage) {
	if du.ImageUsage != nil {
		du.ImageUsage.Items = nil
	}
	if du.ContainerUsage != nil {
		du.ContainerUsage.Items = nil
	}
	if du.VolumeUsage != nil {
		du.VolumeUsage.Items = nil
	}
}
