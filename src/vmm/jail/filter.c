/* What each kind of thread may ask of the kernel: lists of what the code does. Whatever
 * is not on them ends the process. */
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/seccomp.h"
#include "vmm/jail/thread.h"

/* Locks, memory without a right to execute (see memory_rules), time, signals, what is
 * done with descriptors that are there. */
#define COMMON                                                                                     \
        "brk clock_gettime clock_nanosleep close exit exit_group futex getpid getrandom gettid "   \
        "madvise mremap munmap ppoll poll read restart_syscall rt_sigprocmask rt_sigreturn "       \
        "sched_getaffinity sched_yield set_robust_list sigaltstack tgkill timerfd_settime write"
#define SOCKETS                                                                                    \
        " accept4 epoll_create1 epoll_ctl epoll_pwait epoll_wait getsockopt recvfrom recvmsg "     \
        "sendmsg sendto shutdown"
/* The main thread closes disks, which writes what a qcow2 image holds back. */
#define IMAGES " fallocate fdatasync fstat ftruncate pread64 preadv pwritev"

struct kind {
        const char *name, *calls;
        const unsigned *ioctls; /* ends with 0; NULL: none */
        const int *sigactions;  /* signals whose handler may be set, ends with 0; NULL: none */
        bool unix_sockets;      /* socket(AF_UNIX) and connect() */
};

/* Devices start and stop on the thread of the vCPU that said so, or on the loop's. */
#define DEVICE_IOCTLS TUNSETOFFLOAD, TUNSETQUEUE
/* Devices' own threads raise interrupts. */
#define INTERRUPT_IOCTLS KVM_IRQ_LINE, KVM_SIGNAL_MSI
#define KVM_IOCTLS                                                                                 \
        INTERRUPT_IOCTLS, KVM_IOEVENTFD, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS, \
                KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_DEBUGREGS,       \
                KVM_SET_DEBUGREGS, KVM_GET_MP_STATE, KVM_SET_MP_STATE, KVM_GET_VCPU_EVENTS,        \
                KVM_SET_VCPU_EVENTS, KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_LAPIC, KVM_SET_LAPIC,     \
                KVM_GET_IRQCHIP, KVM_GET_CLOCK

/* Which pages were written: KVM's log, which begins with a flag of memory's slots. */
#define DIRTY_IOCTLS KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG

/* What is attached to a running machine is looked at. */
static const unsigned main_ioctls[] = {
        DEVICE_IOCTLS, KVM_IOCTLS, DIRTY_IOCTLS, TUNGETIFF, TUNGETVNETHDRSZ, BLKGETSIZE64, 0
};
static const unsigned kvm_ioctls[] = { DEVICE_IOCTLS,       KVM_IOCTLS, KVM_INTERRUPT,
                                       KVM_SET_GSI_ROUTING, KVM_RUN,    0 };
static const unsigned gdb_ioctls[] = { KVM_IOCTLS, KVM_SET_GUEST_DEBUG, 0 };
static const unsigned soft_ioctls[] = { DEVICE_IOCTLS, 0 };
static const unsigned disk_ioctls[] = { INTERRUPT_IOCTLS, BLKZEROOUT, BLKDISCARD, 0 };
static const unsigned device_ioctls[] = { INTERRUPT_IOCTLS, 0 };
/* The translator's faults; under KVM also those of the software CPU that helps out, and
 * the kick, which is the first real-time signal that the C library leaves. */
static const int soft_signals[] = { SIGSEGV, SIGFPE, SIGBUS, 0 };
static const int kvm_signals[] = { SIGSEGV, SIGFPE, SIGBUS, 34, 0 };

static const struct kind kinds[JAIL_THREADS] = {
        [JAIL_MAIN] = { .name = "main",
                        .calls = COMMON SOCKETS IMAGES
                        " fcntl getsockname lseek newfstatat pwrite64 setsockopt signalfd4"
                        " timerfd_create",
                        .ioctls = main_ioctls },
        [JAIL_VCPU_SOFT] = { .name = "vcpu",
                             .calls = COMMON,
                             .ioctls = soft_ioctls,
                             .sigactions = soft_signals },
        [JAIL_VCPU_KVM] = { .name = "vcpu of kvm",
                            .calls = COMMON,
                            .ioctls = kvm_ioctls,
                            .sigactions = kvm_signals },
        [JAIL_DISK] = { .name = "disk", .calls = COMMON IMAGES, .ioctls = disk_ioctls },
        [JAIL_NET] = { .name = "network",
                       .calls = COMMON " readv writev",
                       .ioctls = device_ioctls },
        [JAIL_VSOCK_PEERS] = { .name = "vsock",
                               .calls = COMMON SOCKETS,
                               .ioctls = device_ioctls,
                               .unix_sockets = true },
        [JAIL_FILES] = { .name = "files",
                         .ioctls = device_ioctls,
                         .calls = COMMON
                         " chmod copy_file_range faccessat faccessat2 fallocate fchmod fchmodat"
                         " fchown fchownat fcntl fdatasync fgetxattr flistxattr fremovexattr"
                         " fsetxattr fstat fstatfs pread64 pwrite64 fsync ftruncate getdents64 "
                         "getxattr"
                         " lgetxattr linkat listxattr llistxattr lremovexattr lseek lsetxattr"
                         " mkdirat mknodat newfstatat open openat openat2 preadv preadv2 pwritev "
                         "pwritev2 readlink"
                         " readlinkat removexattr renameat renameat2 setxattr statfs statx"
                         " symlinkat syncfs truncate unlinkat utimensat" },
        [JAIL_BALLOON] = { .name = "balloon",
                           .calls = COMMON " fallocate",
                           .ioctls = device_ioctls },
        [JAIL_GDB] = { .name = "gdb",
                       .calls = COMMON " accept4 recvfrom sendto setsockopt",
                       .ioctls = gdb_ioctls },
};

const char *jail_thread_name(enum jail_thread kind)
{
        return kinds[kind].name;
}

#define RULES_MAX 64

/* The rules' lists of names are not const. */
#define CALL(name) static char name##_name[] = #name, *name##_call[] = { name##_name, NULL }
CALL(mmap);
CALL(mprotect);
CALL(ioctl);
CALL(rt_sigaction);
CALL(socket);
CALL(connect);

struct rules {
        struct seccomp_rule list[RULES_MAX];
        struct seccomp_condition conditions[RULES_MAX];
        size_t length;
};

/* `names` allowed where argument `index`, as far as `mask` goes, is `value`. */
static void add_where(struct rules *r, char *const *names, uint32_t index, uint64_t mask,
                      uint64_t value)
{
        r->conditions[r->length] = (struct seccomp_condition){ index, SECCOMP_COMPARE_MASKED_EQ,
                                                               mask, value };
        r->list[r->length] = (struct seccomp_rule){ .names = names,
                                                    .action = SECCOMP_ACTION_ALLOW,
                                                    .conditions = &r->conditions[r->length],
                                                    .conditions_length = 1 };
        r->length++;
}

int jail_filter(enum jail_thread kind, struct seccomp_program *ret, struct err *err)
{
        /* Memory is anonymous and not executed: code memory was mapped before. */
        static const struct seccomp_condition anonymous[] = {
                { 2, SECCOMP_COMPARE_MASKED_EQ, PROT_EXEC, 0 },
                { 3, SECCOMP_COMPARE_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS },
        };
        const struct kind *k = &kinds[kind];
        auto_strv calls = str_split(k->calls, ' ');
        struct rules r = { 0 };
        r.list[r.length++] = (struct seccomp_rule){ .names = calls,
                                                    .action = SECCOMP_ACTION_ALLOW };
        r.list[r.length++] = (struct seccomp_rule){ .names = mmap_call,
                                                    .action = SECCOMP_ACTION_ALLOW,
                                                    .conditions = anonymous,
                                                    .conditions_length = ELEMENTS(anonymous) };
        add_where(&r, mprotect_call, 2, PROT_EXEC, 0);
        for (const unsigned *i = k->ioctls; i && *i; i++)
                add_where(&r, ioctl_call, 1, UINT32_MAX, *i);
        for (const int *s = k->sigactions; s && *s; s++)
                add_where(&r, rt_sigaction_call, 0, UINT32_MAX, (uint64_t)*s);
        if (k->unix_sockets) {
                add_where(&r, socket_call, 0, UINT32_MAX, AF_UNIX);
                r.list[r.length++] = (struct seccomp_rule){ .names = connect_call,
                                                            .action = SECCOMP_ACTION_ALLOW };
        }
        const struct seccomp_profile profile = { .default_action = SECCOMP_ACTION_TRAP,
                                                 .rules = r.list,
                                                 .rules_length = r.length,
                                                 .strict = true };
        return seccomp_compile(&profile, ret, err);
}
