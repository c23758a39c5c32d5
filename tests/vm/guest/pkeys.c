/* Protection keys as a program of the guest has them: one line for each thing that is so. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define TURNS 200000

static sigjmp_buf escape;
static volatile int fault_code, fault_key;

static void on_fault(int signo, siginfo_t *info, void *context)
{
        (void)signo;
        (void)context;
        fault_code = info->si_code;
        fault_key = (int)info->si_pkey;
        siglongjmp(escape, 1);
}

static void check(int so, const char *what)
{
        printf("%s: %s\n", what, so ? "yes" : "NO");
        if (!so)
                exit(1);
}

/* Whether an access faults by the key. */
static int denied(volatile long *at, int write, int key)
{
        fault_code = fault_key = 0;
        if (sigsetjmp(escape, 1) == 0) {
                if (write)
                        *at = 5;
                else
                        (void)*at;
                return 0;
        }
        return fault_code == SEGV_PKUERR && fault_key == key;
}

/* Opens and shuts the page all the time; what others do in between must not show. */
static int sandbox(volatile long *at, int key)
{
        long before = *at;
        for (long i = 1; i <= TURNS; i++) {
                pkey_set(key, 0);
                *at = before + i;
                pkey_set(key, PKEY_DISABLE_WRITE);
                if (*at != before + i || pkey_get(key) != PKEY_DISABLE_WRITE)
                        return 0;
        }
        return denied(at, 1, key);
}

static int child_key;

static void *in_thread(void *at)
{
        return denied(at, 0, child_key) ? at : NULL;
}

static volatile sig_atomic_t rights_in_handler;

static void on_alarm(int signo)
{
        (void)signo;
        pkey_set(child_key, 0); /* undone by the return */
        rights_in_handler = pkey_get(child_key);
}

int main(void)
{
        struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
        sigaction(SIGSEGV, &action, NULL);
        int key = pkey_alloc(0, 0);
        check(key > 0, "a key is there");
        volatile long *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                   -1, 0);
        *page = 1;
        check(pkey_mprotect((void *)page, 4096, PROT_READ | PROT_WRITE, key) == 0, "it guards");
        pkey_set(key, PKEY_DISABLE_WRITE);
        check(*page == 1 && denied(page, 1, key), "it forbids writing");
        pkey_set(key, PKEY_DISABLE_ACCESS);
        check(denied(page, 0, key) && denied(page, 1, key), "it forbids reading");
        page[512] = 2;
        check(page[512] == 2, "the next page is free");

        int ends[2];
        check(pipe(ends) == 0 && write(ends[1], (void *)page, 8) < 0 && errno == EFAULT,
              "it forbids the kernel");
        pthread_t thread;
        void *same;
        child_key = key;
        pthread_create(&thread, NULL, in_thread, (void *)page);
        pthread_join(thread, &same);
        check(same != NULL, "threads inherit");
        signal(SIGALRM, on_alarm);
        raise(SIGALRM);
        check(rights_in_handler == 0 && pkey_get(key) == PKEY_DISABLE_ACCESS,
              "a handler's rights end with it");

        pkey_set(key, 0);
        *page = 0;
        pid_t child = fork();
        if (child == 0)
                _exit(sandbox(page, key) ? 0 : 1);
        int mine = sandbox(page, key), status = -1;
        waitpid(child, &status, 0);
        check(mine && status == 0, "two sandboxes");
        void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *(unsigned char *)code = 0xc3;
        check(mprotect(code, 4096, PROT_EXEC) == 0, "code only");
        (void)denied(code, 0, 0); /* the key is the kernel's choice */
        ((void (*)(void))code)();
        check(fault_code == SEGV_PKUERR, "it runs but may not be read");
        printf("all is so\n");
        return 0;
}
