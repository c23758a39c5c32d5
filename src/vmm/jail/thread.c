#include "vmm/jail/thread.h"

#include <errno.h>
#include <linux/capability.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "sys/caps.h"
#include "sys/landlock.h"

#define CAP(c) (1ull << (c))
#define ARENAS 8 /* of malloc; else it looks for the number of processors */

/* What root's virtio-fs server does for a guest's users. They count only for files, and
 * only where the thread can reach one. */
#define FILE_CAPS                                                                                  \
        (CAP(CAP_CHOWN) | CAP(CAP_DAC_OVERRIDE) | CAP(CAP_FOWNER) | CAP(CAP_FSETID) |              \
         CAP(CAP_SETFCAP))

/* Set while there is one thread. */
static bool jailed;
/* A filter is made by the first thread that needs it: each costs a third of a millisecond, and few
 * machines have threads of every kind. Made ones do not change. */
static pthread_mutex_t filters_lock = PTHREAD_MUTEX_INITIALIZER;
static struct seccomp_program filters[JAIL_THREADS];
static bool filters_made[JAIL_THREADS];
static __thread enum jail_thread thread_kind;

/* A thread did what it may not. Runs inside of it, which may be in the guest's hands. */
static void forbidden(int signo, siginfo_t *info, void *context)
{
        char line[128];
        (void)signo;
        (void)context;
        int size = snprintf(line, sizeof(line),
                            "isle-vmm: jail: a thread of kind '%s' made system call %d, which it "
                            "may not\n",
                            jail_thread_name(thread_kind), info->si_syscall);
        (void)!write(STDERR_FILENO, line, (size_t)size);
        _exit(JAIL_BROKEN);
}

int jail_prepare(struct err *err)
{
        struct sigaction action = { .sa_sigaction = forbidden,
                                    .sa_flags = SA_SIGINFO | SA_ONSTACK };
        /* The C library reads these files when they are first needed. */
        tzset();
        mallopt(M_ARENA_MAX, ARENAS);
        if (sigaction(SIGSYS, &action, NULL) < 0)
                return err_set(err, errno, "SIGSYS");
        jailed = true;
        return 0;
}

bool jail_is_on(void)
{
        return jailed;
}

static int need_filter(enum jail_thread kind, struct err *err)
{
        int r = 0;
        pthread_mutex_lock(&filters_lock);
        if (!filters_made[kind])
                r = jail_filter(kind, &filters[kind], err);
        filters_made[kind] = r == 0;
        pthread_mutex_unlock(&filters_lock);
        return r < 0 ? err_wrap(err, "filter of kind '%s'", jail_thread_name(kind)) : 0;
}

static int drop_capabilities(enum jail_thread kind, struct err *err)
{
        uint64_t keep = kind == JAIL_FILES && geteuid() == 0 ? FILE_CAPS : 0;
        const struct caps_sets sets = { .effective = keep, .permitted = keep };
        int r = caps_drop_bounding(keep, err);
        return r < 0 ? r : caps_set(&sets, err);
}

void jail_thread(enum jail_thread kind)
{
        struct err err = { 0 };
        if (!jailed)
                return;
        thread_kind = kind;
        sigset_t trap;
        sigemptyset(&trap);
        sigaddset(&trap, SIGSYS);
        pthread_sigmask(SIG_UNBLOCK, &trap, NULL);
        /* Shared directories are opened beneath; nobody else needs a path or a network. */
        const struct landlock_denial denial = { .files = kind != JAIL_FILES, .networks = true };
        if (need_filter(kind, &err) < 0 || drop_capabilities(kind, &err) < 0 ||
            landlock_deny(&denial, &err) < 0 ||
            seccomp_install(&filters[kind], 0, NULL, &err) < 0) {
                fprintf(stderr, "isle-vmm: jail of a thread: %s\n", err_text(&err));
                _exit(1);
        }
}
