package stream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/stream"
)

// A client that lives on takes a renewed authority, certificate, key or password at its next connection.
func TestClientReadsItsFilesAtEachConnection(t *testing.T) {
	t.Parallel()
	k := secureKafka(t)
	for _, what := range []string{"authority", "certificate", "password"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			files := filesOf(t, k)
			cfg := files.config(k, what == "certificate")
			certificate, key := selfSigned(t)
			switch what {
			case "authority":
				files.write(t, cfg.TLS.CAFile, certificate)
			case "certificate":
				files.write(t, cfg.TLS.CertFile, certificate)
				files.write(t, cfg.TLS.KeyFile, key)
			case "password":
				files.write(t, files.password, []byte("wrong"))
			}
			opts, err := cfg.ClientOptions()
			if err != nil {
				t.Fatal(err)
			}
			client, err := kgo.NewClient(opts...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			if err := client.Ping(t.Context()); err == nil || !stream.IsPermanent(err) {
				t.Errorf("with a wrong %s: %v", what, err)
			}
			for path, content := range files.right {
				files.write(t, path, content)
			}
			if err := client.Ping(t.Context()); err != nil {
				t.Errorf("with the right %s: %v", what, err)
			}
		})
	}
}

// secretFiles are copies of what opens a Kafka.
type secretFiles struct {
	tls      stream.TLSConfig
	password string
	right    map[string][]byte // what each must hold
}

func filesOf(t *testing.T, k *devstack.Kafka) *secretFiles {
	t.Helper()
	dir := t.TempDir()
	f := &secretFiles{password: filepath.Join(dir, "password"), tls: stream.TLSConfig{
		Enabled: true, CAFile: filepath.Join(dir, "ca"), CertFile: filepath.Join(dir, "certificate"), KeyFile: filepath.Join(dir, "key"),
	}}
	f.right = map[string][]byte{
		f.tls.CAFile: contentOf(t, k.CAFile()), f.tls.CertFile: contentOf(t, k.ClientCertFile()), f.tls.KeyFile: contentOf(t, k.ClientKeyFile()), f.password: []byte(k.Password()),
	}
	for path, content := range f.right {
		f.write(t, path, content)
	}
	return f
}

func (f *secretFiles) write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// config is of a client that shows its certificate, or one that has a password.
func (f *secretFiles) config(k *devstack.Kafka, mutual bool) stream.KafkaConfig {
	if mutual {
		return stream.KafkaConfig{Brokers: k.MutualTLSBrokers(), TLS: f.tls}
	}
	return stream.KafkaConfig{
		Brokers: k.Brokers(), TLS: stream.TLSConfig{Enabled: true, CAFile: f.tls.CAFile},
		SASL: stream.SASLConfig{Mechanism: "PLAIN", Username: k.Username(), PasswordNow: func() (string, error) {
			text, err := os.ReadFile(f.password)
			return string(text), err
		}},
	}
}

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// selfSigned is a certificate that nobody trusts, and its key.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}
