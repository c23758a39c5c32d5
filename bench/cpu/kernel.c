/* What a guest's kernel does for its programs. */
#define _GNU_SOURCE
#include "measure.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096u

static void getppid_(uint64_t ops)
{
        while (ops--)
                syscall(SYS_getppid);
}

static void read_(uint64_t ops)
{
        char byte[64];
        int fd = open("/dev/zero", O_RDONLY);
        while (ops--)
                sink = (uint64_t)read(fd, byte, sizeof(byte));
        close(fd);
}

static void open_close(uint64_t ops)
{
        while (ops--)
                close(open("/dev/zero", O_RDONLY));
}

static void stat_(uint64_t ops)
{
        struct stat st;
        while (ops--)
                sink = (uint64_t)stat("/dev/zero", &st);
}

/* A byte there and back between two processes. */
static void echo(const int there[2], const int back[2])
{
        char byte;
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
                if (write(back[1], &byte, 1) != 1)
                        break;
        _exit(0);
}

static void pipe_(uint64_t ops)
{
        int there[2], back[2];
        char byte = 0;
        if (pipe(there) < 0 || pipe(back) < 0)
                exit(1);
        pid_t pid = fork();
        if (pid == 0)
                echo(there, back);
        while (ops--)
                if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
                        exit(1);
        for (unsigned i = 0; i < 2; i++)
                close(there[i]), close(back[i]);
        waitpid(pid, NULL, 0);
}

static void socket_(uint64_t ops)
{
        int pair[2];
        char bytes[64] = { 0 };
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
                exit(1);
        while (ops--)
                if (write(pair[0], bytes, 64) != 64 || read(pair[1], bytes, 64) != 64)
                        exit(1);
        close(pair[0]);
        close(pair[1]);
}

static void page_fault(uint64_t ops)
{
        while (ops) {
                uint64_t pages = ops < 1024 ? ops : 1024;
                char *memory = must(mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
                madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
                for (uint64_t i = 0; i < pages; i++)
                        memory[i * PAGE] = 1;
                munmap(memory, pages * PAGE);
                ops -= pages;
        }
}

static void map_unmap(uint64_t ops)
{
        while (ops--) {
                char *memory = must(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
                memory[0] = 1;
                munmap(memory, 4 * PAGE);
        }
}

static void fork_(uint64_t ops)
{
        while (ops--) {
                pid_t pid = fork();
                if (pid == 0)
                        _exit(0);
                waitpid(pid, NULL, 0);
        }
}

static void fork_exec(uint64_t ops)
{
        while (ops--) {
                pid_t pid = fork();
                if (pid == 0) {
                        execl("/proc/self/exe", "kernel", "nothing", NULL);
                        _exit(1);
                }
                waitpid(pid, NULL, 0);
        }
}

static volatile sig_atomic_t signals;

static void on_signal(int signo)
{
        (void)signo;
        signals++;
}

static void signal_(uint64_t ops)
{
        signal(SIGUSR1, on_signal);
        while (ops--)
                raise(SIGUSR1);
}

/* mov eax, n; ret: written, run, written again. */
static void jit_rewrite(uint64_t ops)
{
        static uint8_t *code;
        if (!code)
                code = must(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        uint64_t sum = 0;
        for (uint64_t n = 0; n < ops; n++) {
                uint32_t value = (uint32_t)n;
                code[0] = 0xb8;
                memcpy(code + 1, &value, 4);
                code[5] = 0xc3;
                uint32_t got = ((uint32_t(*)(void))(uintptr_t)code)();
                if (got != value)
                        exit(1);
                sum += got;
        }
        sink = sum;
}

/* A compiler's pattern: functions one behind the other, each run a few times. */
static void jit_append(uint64_t ops)
{
        static uint8_t *code;
        const size_t size = 64 * PAGE;
        if (!code)
                code = must(mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        size_t at = 0;
        for (uint64_t n = 0; n < ops; n++, at += 48) {
                if (at + 48 > size)
                        at = 0;
                for (unsigned i = 0; i < 40; i += 4)
                        memcpy(code + at + i, "\x48\x8d\x47\x01", 4); /* lea rax, [rdi+1] */
                code[at + 40] = 0xc3;
                uint64_t sum = 0;
                for (unsigned i = 0; i < 20; i++)
                        sum += ((uint64_t(*)(uint64_t))(uintptr_t)(code + at))(sum);
                sink = sum;
        }
}

static const struct work works[] = {
        { "syscall", "getppid", 200000, getppid_ },
        { "syscall", "read", 100000, read_ },
        { "syscall", "open-close", 20000, open_close },
        { "syscall", "stat", 40000, stat_ },
        { "syscall", "pipe-pingpong", 5000, pipe_ },
        { "syscall", "socketpair", 20000, socket_ },
        { "virtual", "page-fault", 8192, page_fault },
        { "virtual", "mmap-munmap", 5000, map_unmap },
        { "virtual", "fork", 100, fork_ },
        { "virtual", "fork-exec", 40, fork_exec },
        { "virtual", "signal", 20000, signal_ },
        { "jit", "rewrite", 20000, jit_rewrite },
        { "jit", "append", 20000, jit_append },
};

int main(int argc, char **argv)
{
        if (argc == 2 && strcmp(argv[1], "nothing") == 0)
                return 0;
        return MEASURE(works, argc, argv);
}
