package main

import (
	"maps"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Alerts go by the name of the scrape job: under another one they would never fire, or always.
func TestScrapeJobHasTheNameThatAlertsGoBy(t *testing.T) {
	t.Parallel()
	alerts := textOf(t, "deploy/prometheus/alerts.yml")
	jobs := regexp.MustCompile(`job="([^"]+)"`).FindAllStringSubmatch(alerts, -1)
	if len(jobs) == 0 {
		t.Fatal("no alert goes by a job")
	}
	job := jobs[0][1]
	for _, other := range jobs {
		if other[1] != job {
			t.Errorf("alerts go by the jobs %s and %s", job, other[1])
		}
	}
	var prometheus struct {
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(textOf(t, "deploy/compose/prometheus.yml")), &prometheus); err != nil {
		t.Fatal(err)
	}
	if len(prometheus.ScrapeConfigs) != 1 || prometheus.ScrapeConfigs[0].JobName != job {
		t.Errorf("compose scrapes %+v, alerts go by %s", prometheus.ScrapeConfigs, job)
	}
	// With the operator the job has the Service's name.
	m := readManifest(t)
	if m.service != job || !maps.Equal(m.selector, m.labels) || m.target != m.container.Ports[0].Name {
		t.Errorf("the Service %s leads to port %s of %v; alerts go by %s, the pods are %v", m.service, m.target, m.selector, job, m.labels)
	}
	for _, file := range []string{"deploy/prometheus/alerts.yml", kubernetesFile} {
		if !strings.Contains(strings.ReplaceAll(textOf(t, file), "\n# ", " "), "named "+job) {
			t.Errorf("%s does not tell the job's name", file)
		}
	}
}
