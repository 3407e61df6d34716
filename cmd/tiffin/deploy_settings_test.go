package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/tiffin/cmd/internal/settings"
)

// Who applies the manifest with the Secret that its first lines ask for has a daemon that starts: in
// each pod the settings are valid, the password is used, and the probes reach it.
func TestKubernetesSettingsAreValidWithTheSecretAskedFor(t *testing.T) {
	t.Parallel()
	m := readManifest(t)
	secret := regexp.MustCompile(`--from-literal=(TIFFIN_\w+)=`).FindAllStringSubmatch(textOf(t, kubernetesFile), -1)
	if len(secret) < 2 {
		t.Fatalf("the Secret has %q", secret)
	}
	slots := map[string]bool{}
	for _, ordinal := range []string{"0", "1", "10"} {
		environ := imageEnviron(t)
		for _, variable := range secret {
			environ = append(environ, variable[1]+"="+given(variable[1]))
		}
		for _, variable := range m.container.Env {
			environ = append(environ, variable.Name+"="+strings.ReplaceAll(variable.Value, "$(ORDINAL)", ordinal))
		}
		s := wantValid(t, "tiffin-"+ordinal, settings.Input{File: m.settingsFile(t), Environ: environ})
		if s == nil {
			continue
		}
		if k := s.Kafka; k.SASL.Mechanism != "SCRAM-SHA-512" || k.SASL.Username != "tiffin" || !k.TLS.Enabled {
			t.Errorf("tiffin-%s logs in by %q as %q, TLS %t", ordinal, k.SASL.Mechanism, k.SASL.Username, k.TLS.Enabled)
		}
		if slots[s.Source.Slot] {
			t.Errorf("tiffin-%s shares the slot %s", ordinal, s.Source.Slot)
		}
		slots[s.Source.Slot] = true
		if want := fmt.Sprintf("0.0.0.0:%d", m.container.Ports[0].ContainerPort); s.HTTP.Listen != want {
			t.Errorf("tiffin-%s listens on %s, the probes ask %s", ordinal, s.HTTP.Listen, want)
		}
	}
}

func TestComposeSettingsAreValid(t *testing.T) {
	t.Parallel()
	var compose struct {
		Services map[string]struct{ Environment map[string]string }
	}
	if err := yaml.Unmarshal([]byte(textOf(t, "deploy/compose/compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	environ := imageEnviron(t)
	for name, value := range compose.Services["tiffin"].Environment {
		environ = append(environ, name+"="+value)
	}
	if s := wantValid(t, "compose", settings.Input{Environ: environ}); s != nil && s.HTTP.Loopback() {
		t.Errorf("nobody outside the container reaches %s", s.HTTP.Listen)
	}
}

// wantValid returns the settings, or nil after it told their faults.
func wantValid(t *testing.T, who string, in settings.Input) *settings.Settings {
	t.Helper()
	s, err := settings.Load(in)
	if err != nil {
		t.Errorf("%s: %v", who, err)
		return nil
	}
	for _, warning := range s.Warnings { // a mistyped variable is one
		t.Errorf("%s: %s", who, warning)
	}
	return s
}

// given is what an operator puts in for … in the manifest.
func given(variable string) string {
	if strings.HasSuffix(variable, "_DSN") {
		return "postgres://u:secret@h/d?sslmode=verify-full"
	}
	return "secret"
}

// imageEnviron is what every container has from the image.
func imageEnviron(t *testing.T) (environ []string) {
	t.Helper()
	for _, line := range regexp.MustCompile(`(?m)^ENV (\S+=\S+)$`).FindAllStringSubmatch(textOf(t, "deploy/Dockerfile"), -1) {
		environ = append(environ, line[1])
	}
	return environ
}

const kubernetesFile = "deploy/kubernetes/tiffin.yaml"

// manifest is what the tests need of the Kubernetes objects.
type manifest struct {
	files     map[string]string // of the ConfigMap
	service   string
	selector  map[string]string // of the Service
	target    string            // the Service's port of a pod
	labels    map[string]string // of a pod
	user      int
	grace     time.Duration // between the request to stop and the kill
	container container
}

type container struct {
	Args  []string
	Env   []struct{ Name, Value string }
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	ReadinessProbe probe `yaml:"readinessProbe"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func readManifest(t *testing.T) (m manifest) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(textOf(t, kubernetesFile)))
	for {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Data     map[string]string
			Spec     struct {
				Selector yaml.Node
				Ports    []struct {
					TargetPort string `yaml:"targetPort"`
				}
				Template struct {
					Metadata struct{ Labels map[string]string }
					Spec     struct {
						Containers      []container
						Grace           int `yaml:"terminationGracePeriodSeconds"`
						SecurityContext struct {
							RunAsUser int `yaml:"runAsUser"`
						} `yaml:"securityContext"`
					}
				}
			}
		}
		switch err := decoder.Decode(&object); {
		case errors.Is(err, io.EOF):
			return m
		case err != nil:
			t.Fatal(err)
		case object.Kind == "ConfigMap":
			m.files = object.Data
		case object.Kind == "Service":
			m.service, m.target = object.Metadata.Name, object.Spec.Ports[0].TargetPort
			if err := object.Spec.Selector.Decode(&m.selector); err != nil {
				t.Fatal(err)
			}
		case object.Kind == "StatefulSet":
			template := object.Spec.Template
			m.labels, m.user, m.container = template.Metadata.Labels, template.Spec.SecurityContext.RunAsUser, template.Spec.Containers[0]
			m.grace = time.Duration(template.Spec.Grace) * time.Second
		}
	}
}

// settingsFile is the file that the container's -c names, with the ConfigMap's others beside it.
func (m manifest) settingsFile(t *testing.T) string {
	t.Helper()
	dir, name := filepath.Split(m.container.Args[len(m.container.Args)-1])
	if m.files[name] == "" || m.container.VolumeMounts[0].MountPath != filepath.Clean(dir) {
		t.Fatalf("%q: the ConfigMap has no %s, or is not mounted at %s", m.container.Args, name, dir)
	}
	here := t.TempDir() + "/"
	for file, text := range m.files {
		if err := os.WriteFile(here+file, []byte(strings.ReplaceAll(text, dir, here)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return here + name
}
