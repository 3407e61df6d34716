package devstack

import "syscall"

// attributes gives a server its own process group, so that Ctrl-C reaches only this process, which
// then stops its servers in order. Go sets the parent-death signal after the change of user, which
// would clear it (prctl(2), PR_SET_PDEATHSIG).
func attributes(as *account, death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death, Credential: as.credential()}
}
