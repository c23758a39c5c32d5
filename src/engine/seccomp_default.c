/* The system calls an instance may make unless told otherwise: docker's default policy.
 *
 * Everything not listed fails with EPERM. Left out are calls that name spaces do
 * not confine (kernel modules, kexec, swap, clocks, quota, keyrings), that open
 * large parts of the kernel (bpf, perf, userfaultfd, io_uring, mounts), or that
 * only obsolete programs use. Some come with a capability.
 *
 * Source: docs.docker.com "Seccomp security profiles for Docker" for the policy;
 * man pages of section 2 for the calls.
 */
#include "engine/seccomp_profile.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>

#include "base/str.h"

#define CLONE_NEW_ANY                                                                              \
        (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
         CLONE_NEWPID | CLONE_NEWNET)
#define AF_VSOCK_NUMBER 40

static const char files[] =
        "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 "
        "faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 "
        "fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr "
        "fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat "
        "getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init "
        "inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr "
        "listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 listmount "
        "statmount mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 "
        "pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink "
        "readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile "
        "sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat "
        "sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat "
        "utimensat_time64 utimes vmsplice write writev cachestat file_getattr file_setattr";

static const char memory[] =
        "brk get_thread_area madvise membarrier memfd_create memfd_secret mincore mlock mlock2 "
        "mlockall mmap mmap2 mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free "
        "pkey_mprotect process_mrelease remap_file_pages set_thread_area mseal map_shadow_stack";

static const char processes[] =
        "capget capset execve execveat exit exit_group fork getegid getegid32 geteuid geteuid32 "
        "getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority "
        "getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid "
        "getuid32 get_robust_list ioprio_get ioprio_set kill landlock_add_rule "
        "landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl "
        "prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq "
        "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr "
        "sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 "
        "sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp "
        "setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid "
        "setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid "
        "setreuid32 setrlimit setsid setuid setuid32 set_robust_list set_tid_address ugetrlimit "
        "vfork wait4 waitid waitpid arch_prctl modify_ldt";

static const char signals[] =
        "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
        "rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signal signalfd "
        "signalfd4 sigpending sigprocmask sigreturn tgkill tkill";

static const char waiting[] =
        "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 "
        "epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait "
        "futex_waitv futex_wake io_cancel io_destroy io_getevents io_pgetevents "
        "io_pgetevents_time64 io_setup io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 "
        "select";

static const char clocks[] =
        "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 "
        "clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getcpu getitimer "
        "gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun "
        "timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create "
        "timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times";

static const char sockets[] =
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom "
        "recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown "
        "socketcall socketpair";

static const char messages[] =
        "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend "
        "mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop "
        "semtimedop_time64 shmat shmctl shmdt shmget";

static const char others[] = "getrandom sysinfo uname riscv_hwprobe uretprobe";

#define ALLOW(names_)                                                                              \
        {                                                                                          \
                .names = (names_), .cap = -1                                                       \
        }
#define ALLOW_WITH(capability, names_)                                                             \
        {                                                                                          \
                .names = (names_), .cap = (capability)                                             \
        }
#define ALLOW_IF(names_, op_, value_, two)                                                         \
        {                                                                                          \
                .names = (names_), .cap = -1, .conditional = true, .op = (op_), .value = (value_), \
                .value_two = (two)                                                                 \
        }

static const struct seccomp_default_rule rules[] = {
        ALLOW(files),
        ALLOW(memory),
        ALLOW(processes),
        ALLOW(signals),
        ALLOW(waiting),
        ALLOW(clocks),
        ALLOW(sockets),
        ALLOW(messages),
        ALLOW(others),
        /* Linux, with and without 16-bit uname, with short i-nodes; and asking. */
        ALLOW_IF("personality", OCI_SECCOMP_OP_EQ, 0x0, 0),
        ALLOW_IF("personality", OCI_SECCOMP_OP_EQ, 0x8, 0),
        ALLOW_IF("personality", OCI_SECCOMP_OP_EQ, 0x20000, 0),
        ALLOW_IF("personality", OCI_SECCOMP_OP_EQ, 0x20008, 0),
        ALLOW_IF("personality", OCI_SECCOMP_OP_EQ, 0xffffffff, 0),
        /* vsock reaches past every network namespace */
        ALLOW_IF("socket", OCI_SECCOMP_OP_NE, AF_VSOCK_NUMBER, 0),
        ALLOW_WITH(CAP_DAC_READ_SEARCH, "open_by_handle_at"),
        ALLOW_WITH(CAP_SYS_ADMIN,
                   "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie "
                   "mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
                   "setdomainname sethostname setns syslog umount umount2 unshare"),
        /* no new name spaces; clone3's flags are in memory, where a filter cannot look */
        { .names = "clone",
          .cap = CAP_SYS_ADMIN,
          .without_cap = true,
          .conditional = true,
          .op = OCI_SECCOMP_OP_MASKED_EQ,
          .value = CLONE_NEW_ANY,
          .value_two = 0 },
        { .names = "clone3", .cap = CAP_SYS_ADMIN, .without_cap = true, .errno_ret = ENOSYS },
        ALLOW_WITH(CAP_SYS_BOOT, "reboot"),
        ALLOW_WITH(CAP_SYS_CHROOT, "chroot"),
        ALLOW_WITH(CAP_SYS_MODULE, "delete_module init_module finit_module"),
        ALLOW_WITH(CAP_SYS_PACCT, "acct"),
        ALLOW_WITH(CAP_SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
        ALLOW_WITH(CAP_SYS_RAWIO, "iopl ioperm"),
        ALLOW_WITH(CAP_SYS_TIME, "settimeofday stime clock_settime clock_settime64"),
        ALLOW_WITH(CAP_SYS_TTY_CONFIG, "vhangup"),
        ALLOW_WITH(CAP_SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
        ALLOW_WITH(CAP_SYSLOG, "syslog"),
        ALLOW_WITH(CAP_BPF, "bpf"),
        ALLOW_WITH(CAP_PERFMON, "perf_event_open"),
};

const struct seccomp_default_rule *seccomp_default_rules(size_t *ret_length)
{
        *ret_length = ELEMENTS(rules);
        return rules;
}
