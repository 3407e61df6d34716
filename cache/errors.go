package cache

import (
	"errors"
	"fmt"
)

var (
	// ErrInconsistent says that the stream and the index contradict each other (a removal of
	// a row that the index does not have, say). The index answers no lookup any more; the
	// remedy is a rebuild: BeginLoad.
	ErrInconsistent = errors.New("index and change stream contradict each other: the index must be rebuilt")

	// ErrUnknownID says that a change names a row id that the index does not have. It comes
	// wrapped together with ErrInconsistent: errors.Is holds for both.
	ErrUnknownID = errors.New("no row has this id")

	// ErrIdentity says that a change does not carry what the mode of the load needs: an id in
	// keyed mode, a pair otherwise. The table's replica identity was changed; it comes
	// wrapped together with ErrInconsistent.
	ErrIdentity = errors.New("the change does not name its row in the way the index was loaded for (replica identity changed?)")

	// ErrNotLoaded says that no load has finished since New or since the last BeginLoad.
	ErrNotLoaded = errors.New("index is not loaded")

	// ErrManyRows says that a lookup would have to read more rows than it was allowed to.
	ErrManyRows = errors.New("more rows would have to be read than this lookup may")

	// ErrClosed says that Close was called.
	ErrClosed = errors.New("index is closed")

	// ErrFull says that a dictionary ran out of numbers: 2^31 clients or restaurants.
	ErrFull = errors.New("dictionary is full: more than 2^31 different texts")

	errNoRow = fmt.Errorf("removal of a row that is not there: %w", ErrInconsistent)

	// errWithdrawn says that a rebuild began while a lookup was under way: it starts again.
	errWithdrawn = errors.New("index content was withdrawn")
)
