package cache

import (
	"fmt"
	"os"
)

// spill is a temporary file for what a large transaction may not keep in memory. It has no
// name once it is open: whatever happens to the process, nothing is left on the disk.
type spill struct {
	dir  string // empty: the system's for temporary files
	file *os.File
	end  int64
}

// append writes b behind what was written before. What failed is as if it had not been tried.
func (s *spill) append(b []byte) error {
	if s.file == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	if _, err := s.file.WriteAt(b, s.end); err != nil {
		return fmt.Errorf("spill %d bytes of a large transaction: %w", len(b), err)
	}
	s.end += int64(len(b))
	return nil
}

func (s *spill) open() error {
	f, err := os.CreateTemp(s.dir, "tiffin-transaction-")
	if err != nil {
		return fmt.Errorf("open a file for a large transaction: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close() // nothing is in it
		return fmt.Errorf("unlink the file of a large transaction: %w", err)
	}
	s.file = f
	return nil
}

// read fills b with what was written at an offset.
func (s *spill) read(b []byte, at int64) error {
	if _, err := s.file.ReadAt(b, at); err != nil {
		return fmt.Errorf("read %d bytes of a large transaction back: %w", len(b), err)
	}
	return nil
}

// close gives the disk's room back. The spill may be used again.
func (s *spill) close() {
	if s.file != nil {
		_ = s.file.Close() // what was in it is not needed any more
		s.file, s.end = nil, 0
	}
}
