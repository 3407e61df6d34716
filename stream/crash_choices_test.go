package stream

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// What an operator chose (--ledger-behind, --input-reset), and what retention forces, takes two
// effects or more, and crashes at each of them: the next start with the same choice comes to the
// same end.
func TestCrashInAChoiceComesToTheSameEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		choice func(*crashWorld, *testing.T)
		config func(*Config)
		effect string
	}{
		{"restored ledger, skip", (*crashWorld).restoreLedger, func(c *Config) { c.LedgerBehind = LedgerSkip }, "moveTo"},
		{"deleted by retention", (*crashWorld).deleteUnhandled, func(*Config) {}, "moveTo"},
		{"recreated topic, anew", (*crashWorld).recreateInput, func(c *Config) { c.InputReset = InputAnew }, "setAside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			kind := crashKind{between: c.choice, config: c.config, only: []string{c.effect, "claim", "OffsetCommit"}}
			crashAtEvery(t, kind, nil, kind.only...)
		})
	}
}

// restoreLedger takes two partitions back to an older state, as a backup of the feedback database
// does: what was handled since has records and no rows. More messages come.
func (w *crashWorld) restoreLedger(t *testing.T) {
	t.Helper()
	before := w.sink.lines(t)
	w.store.mu.Lock()
	for partition := range int32(2) {
		e := w.store.progress[partition]
		e.next -= 2
		e.level = e.next
		w.store.progress[partition] = e
		w.store.forget(partition, e.next)
	}
	w.store.mu.Unlock()
	w.onlyRecords = minus(before, w.sink.lines(t))
	w.fill(t)
}

// deleteUnhandled publishes messages and deletes those of a partition before anybody handles them.
func (w *crashWorld) deleteUnhandled(t *testing.T) {
	t.Helper()
	handled := w.deliveries
	w.fill(t)
	cl := w.client(t)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(t.Context(), "in")
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup("in", 0)
	offsets := kadm.Offsets{}
	offsets.AddOffset("in", 0, end.Offset, -1)
	if _, err := adm.DeleteRecords(t.Context(), offsets); err != nil {
		t.Fatal(err)
	}
	w.deliveries = handled
	for i, restaurant := range w.kind.filling() {
		if i%crashPartitions != 0 {
			w.deliveries += fans()[restaurant]
		} else if restaurant == "bad" {
			w.letters--
		}
	}
}

// recreateInput deletes the input topic and makes it again, with messages of its own.
func (w *crashWorld) recreateInput(t *testing.T) {
	t.Helper()
	cl := w.client(t)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if _, err := adm.DeleteTopic(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), crashPartitions, 1, nil, "in"); err != nil {
		t.Fatal(err)
	}
	w.onlyRecords = w.sink.lines(t)
	w.fill(t)
}

// downgrade takes transactions of version 2 away from the brokers (KIP-584, UpdateFeatures).
func (w *crashWorld) downgrade(t *testing.T) {
	t.Helper()
	cl := w.client(t)
	defer cl.Close()
	req := kmsg.NewPtrUpdateFeaturesRequest()
	feature := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	feature.Feature, feature.MaxVersionLevel, feature.UpgradeType = "transaction.version", 0, 2 // a safe downgrade
	req.FeatureUpdates = append(req.FeatureUpdates, feature)
	resp, err := req.RequestWith(t.Context(), cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// brokers are options of brokers that know no transactions.
func (k crashKind) brokers() []kfake.Opt {
	if !k.plain {
		return nil
	}
	known := kversion.Stable()
	for _, request := range []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.DescribeTransactions, kmsg.ListTransactions} {
		known.SetMaxKeyVersion(int16(request), -1)
	}
	return []kfake.Opt{kfake.MaxVersions(known)}
}
