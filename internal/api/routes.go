package api

import "net/http"

// kind says how long a request lives; see the package's comment.
type kind int

const (
	query    kind = iota // ends with its client
	change               // runs to its end
	stream               // ends with its client and when the daemon leaves
	transfer             // as a stream; what waits for the client then waits no longer
)

// route is a row of the table. In a pattern {name} stands for one segment of the path and {name...} for one
// or more, as image names need.
type route struct {
	method  string
	pattern string
	kind    kind
	handle  func(*Server, http.ResponseWriter, *request) error
}

const (
	get  = http.MethodGet
	head = http.MethodHead
	post = http.MethodPost
	put  = http.MethodPut
	del  = http.MethodDelete
)

// routes is the API. Of two rows that fit, the first counts.
var routes = []route{
	// System
	{head, "/_ping", query, (*Server).ping},
	{get, "/_ping", query, (*Server).ping},
	{get, "/version", query, (*Server).version},
	{get, "/info", query, (*Server).info},
	{get, "/events", stream, (*Server).eventStream},
	{get, "/system/df", query, (*Server).diskUsage},
	{post, "/auth", query, (*Server).login},
	{post, "/lrd/reload", query, (*Server).reload},

	// Containers
	{get, "/containers/json", query, (*Server).containerList},
	{post, "/containers/create", change, (*Server).containerCreate},
	{get, "/containers/{ref}/json", query, (*Server).containerInspect},
	{get, "/containers/{ref}/top", query, (*Server).containerTop},
	{get, "/containers/{ref}/logs", stream, (*Server).containerLogs},
	{get, "/containers/{ref}/stats", stream, (*Server).containerStats},
	{post, "/containers/{ref}/start", change, (*Server).containerStart},
	{post, "/containers/{ref}/stop", change, (*Server).containerStop},
	{post, "/containers/{ref}/restart", change, (*Server).containerRestart},
	{post, "/containers/{ref}/kill", change, (*Server).containerKill},
	{post, "/containers/{ref}/pause", change, (*Server).containerPause},
	{post, "/containers/{ref}/unpause", change, (*Server).containerUnpause},
	{post, "/containers/{ref}/rename", change, (*Server).containerRename},
	{post, "/containers/{ref}/update", change, (*Server).containerUpdate},
	{post, "/containers/{ref}/resize", query, (*Server).containerResize},
	{post, "/containers/{ref}/attach", stream, (*Server).containerAttach},
	{post, "/containers/{ref}/wait", stream, (*Server).containerWait},
	{del, "/containers/{ref}", change, (*Server).containerRemove},
	{get, "/containers/{ref}/attach/ws", query, missing("lrd does not attach over websockets: use POST /containers/{id}/attach")},
	{get, "/containers/{ref}/changes", query, (*Server).containerChanges},
	{get, "/containers/{ref}/export", transfer, (*Server).containerExport},
	{head, "/containers/{ref}/archive", query, (*Server).archiveStat},
	{get, "/containers/{ref}/archive", transfer, (*Server).archiveGet},
	{put, "/containers/{ref}/archive", transfer, (*Server).archivePut},
	{post, "/containers/prune", change, (*Server).containerPrune},

	// Exec
	{post, "/containers/{ref}/exec", change, (*Server).execCreate},
	{post, "/exec/{id}/start", stream, (*Server).execStart},
	{post, "/exec/{id}/resize", query, (*Server).execResize},
	{get, "/exec/{id}/json", query, (*Server).execInspect},

	// Images
	{get, "/images/json", query, (*Server).imageList},
	{post, "/images/create", transfer, (*Server).imageCreate},
	{post, "/images/load", transfer, (*Server).imageLoad},
	{get, "/images/search", query, (*Server).imageSearch},
	{get, "/images/get", transfer, (*Server).imageSave},
	{post, "/images/prune", change, (*Server).imagePrune},
	{get, "/images/{name...}/json", query, (*Server).imageInspect},
	{get, "/images/{name...}/history", query, (*Server).imageHistory},
	{post, "/images/{name...}/tag", change, (*Server).imageTag},
	{get, "/images/{name...}/get", transfer, (*Server).imageSave},
	{get, "/images/{name...}/attestations", query, missing("lrd does not keep attestations of images")},
	{post, "/images/{name...}/push", transfer, (*Server).imagePush},
	{del, "/images/{name...}", change, (*Server).imageRemove},
	{get, "/distribution/{name...}/json", query, (*Server).distributionInspect},
	{post, "/build", query, missing(noBuild)},
	{post, "/build/prune", query, (*Server).buildPrune},
	{post, "/build/cancel", query, missing(noBuild)},
	{post, "/session", query, missing(noBuild)},
	{post, "/grpc", query, missing(noBuild)},
	{post, "/commit", change, (*Server).commit},

	// Volumes
	{get, "/volumes", query, (*Server).volumeList},
	{post, "/volumes/create", change, (*Server).volumeCreate},
	{post, "/volumes/prune", change, (*Server).volumePrune},
	{get, "/volumes/{name}", query, (*Server).volumeInspect},
	{del, "/volumes/{name}", change, (*Server).volumeRemove},
	{put, "/volumes/{name}", query, notAManager},

	// Networks
	{get, "/networks", query, (*Server).networkList},
	{post, "/networks/create", change, (*Server).networkCreate},
	{post, "/networks/prune", change, (*Server).networkPrune},
	{get, "/networks/{ref}", query, (*Server).networkInspect},
	{post, "/networks/{ref}/connect", change, (*Server).networkConnect},
	{post, "/networks/{ref}/disconnect", change, (*Server).networkDisconnect},
	{del, "/networks/{ref}", change, (*Server).networkRemove},

	// Plugins: there are none, and none can be added.
	{get, "/plugins", query, (*Server).pluginList},
	{get, "/plugins/privileges", query, missing(noPlugins)},
	{get, "/plugins/{name...}/json", query, (*Server).pluginInspect},
	{post, "/plugins/{rest...}", query, missing(noPlugins)},

	// Swarm
	{post, "/swarm/init", query, (*Server).swarmBegin},
	{post, "/swarm/join", query, (*Server).swarmBegin},
	{post, "/swarm/leave", query, notInASwarm},
	{get, "/swarm", query, notAManager},
	{get, "/swarm/unlockkey", query, notAManager},
	{post, "/swarm/update", query, notAManager},
	{post, "/swarm/unlock", query, notInASwarm},
	{get, "/nodes", query, notAManager},
	{get, "/nodes/{rest...}", query, notAManager},
	{post, "/nodes/{rest...}", query, notAManager},
	{del, "/nodes/{rest...}", query, notAManager},
	{get, "/services", query, notAManager},
	{get, "/services/{rest...}", query, notAManager},
	{post, "/services/{rest...}", query, notAManager},
	{del, "/services/{rest...}", query, notAManager},
	{get, "/tasks", query, notAManager},
	{get, "/tasks/{rest...}", query, notAManager},
	{get, "/secrets", query, notAManager},
	{get, "/secrets/{rest...}", query, notAManager},
	{post, "/secrets/{rest...}", query, notAManager},
	{del, "/secrets/{rest...}", query, notAManager},
	{get, "/configs", query, notAManager},
	{get, "/configs/{rest...}", query, notAManager},
	{post, "/configs/{rest...}", query, notAManager},
	{del, "/configs/{rest...}", query, notAManager},
}

// Sentences of more than one row.
const (
	noBuild   = "lrd does not build images: use buildah build and load what it makes (buildah push NAME docker-archive:FILE:NAME, docker load -i FILE), or docker buildx build --load with the docker-container driver"
	noPlugins = "lrd has no plugins"
)
