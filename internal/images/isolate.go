package images

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

// hostConfig is a directory of files that stand in for the host's
// configuration of other container tools. The libraries look into /etc/containers,
// /usr/share/containers and the home directory wherever they are given no path.
type hostConfig struct{ dir string }

// writeHostConfig makes the files. It is called at each start, so that nothing
// of an older version lingers.
func writeHostConfig(dir string, r Registries) (*hostConfig, error) {
	c := &hostConfig{dir: dir}
	for _, sub := range []string{"registries.d", "registries.conf.d", "certs.d", "blobinfo"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("cannot make configuration of the image libraries: %w", err)
		}
	}
	for name, content := range map[string]string{"storage.conf": "", "auth.json": "{}\n", "aliases.conf": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("cannot make configuration of the image libraries: %w", err)
		}
	}
	if err := c.writeRegistries(r); err != nil {
		return nil, err
	}
	// The storage library reads storage.conf before it looks at the options
	// it is given, and this is its only way to be told which one.
	if err := os.Setenv("CONTAINERS_STORAGE_CONF", c.path("storage.conf")); err != nil {
		return nil, fmt.Errorf("cannot make configuration of the image libraries: %w", err)
	}
	return c, nil
}

func (c *hostConfig) path(name string) string { return filepath.Join(c.dir, name) }

// systemContext is what every call into the image library gets.
func (s *Store) systemContext() *types.SystemContext {
	c := s.config
	return &types.SystemContext{
		RegistriesDirPath:           c.path("registries.d"),
		SystemRegistriesConfPath:    c.path("registries.conf"),
		SystemRegistriesConfDirPath: c.path("registries.conf.d"),
		UserShortNameAliasConfPath:  c.path("aliases.conf"),
		AuthFilePath:                c.path("auth.json"),
		BlobInfoCacheDir:            c.path("blobinfo"),
		DockerPerHostCertDirPath:    c.path("certs.d"),
		BigFilesTemporaryDir:        s.tempDir,
		DockerRegistryUserAgent:     s.opts.UserAgent,
		// A nil value would be looked up in ~/.docker/config.json.
		DockerAuthConfig: &types.DockerAuthConfig{},
	}
}

// acceptAnything is the policy on signatures: Docker checks none, and neither
// does lrd until it is told to.
func acceptAnything() (*signature.PolicyContext, error) {
	return signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
}

// libraryLog is where logrus, which the libraries log to, ends up.
var (
	libraryLog  atomic.Pointer[slog.Logger]
	libraryHook sync.Once
)

// redirectLibraryLogs sends what the libraries log by way of logrus to log.
// logrus has one logger per process, so the last caller has it.
func redirectLibraryLogs(log *slog.Logger) {
	libraryLog.Store(log)
	libraryHook.Do(func() {
		logrus.SetOutput(io.Discard)
		logrus.SetLevel(logrus.InfoLevel)
		logrus.AddHook(slogHook{})
	})
}

// slogHook passes logrus entries on to [libraryLog]. What the libraries call
// information is detail to an administrator.
type slogHook struct{}

func (slogHook) Levels() []logrus.Level { return logrus.AllLevels }

func (slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch e.Level {
	case logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel:
		level = slog.LevelError
	case logrus.WarnLevel:
		level = slog.LevelWarn
	case logrus.InfoLevel, logrus.DebugLevel, logrus.TraceLevel:
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	libraryLog.Load().Log(ctx, level, e.Message, "operation", "image storage")
	return nil
}
