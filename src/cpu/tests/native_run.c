/* The child: sandbox, signal handlers, entry and exit stubs. */
#include "cpu/tests/native.h"

#include <assert.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

/* At NATIVE_STATE, reachable by absolute addresses from the stubs. */
struct stub_area {
        struct native_state in, out;
        uint64_t host_rsp;
        uint64_t target;
        uint64_t exit[2];
} __attribute__((aligned(64)));

#define AREA ((struct stub_area *)(uintptr_t)NATIVE_STATE)

void native_enter(void);
void native_exit(void);

/* Absolute addresses: in at 0, out at sizeof(struct native_state). */
#define IN  "0x30000000"
#define OUT "0x30000000+1216"
static_assert(sizeof(struct native_state) == 1216, "offset of out");
static_assert(offsetof(struct stub_area, host_rsp) == 2432, "offset of host_rsp");
static_assert(offsetof(struct native_state, rflags) == 136, "offset of rflags");
static_assert(offsetof(struct native_state, fx) == 144, "offset of fx");
static_assert(offsetof(struct native_state, ymm) == 656, "offset of ymm");

__asm__(".macro load_gpr register, at\n"
        "  mov " IN "+\\at, %\\register\n"
        ".endm\n"
        ".macro store_gpr register, at\n"
        "  mov %\\register, " OUT "+\\at\n"
        ".endm\n"
        ".macro each_gpr what\n" /* but rsp */
        "  \\what rax, 0\n  \\what rcx, 8\n  \\what rdx, 16\n  \\what rbx, 24\n"
        "  \\what rbp, 40\n  \\what rsi, 48\n  \\what rdi, 56\n  \\what r8, 64\n"
        "  \\what r9, 72\n  \\what r10, 80\n  \\what r11, 88\n  \\what r12, 96\n"
        "  \\what r13, 104\n  \\what r14, 112\n  \\what r15, 120\n"
        ".endm\n");

/* FXSAVE wants alignment: it goes through a copy at +0x2000. */
__asm__(".text\n"
        ".globl native_enter\n"
        "native_enter:\n"
        "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, " IN "+2432\n"
        "  fxrstor64 " IN "+0x2000\n"
        ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  vmovups " IN "+656+32*\\i, %ymm\\i\n"
        ".endr\n"
        "  push " IN "+136\n"
        "  popfq\n"
        "  each_gpr load_gpr\n"
        "  mov " IN "+32, %rsp\n"
        "  jmp *" IN "+2440\n"
        ".globl native_exit\n"
        "native_exit:\n"
        "  each_gpr store_gpr\n"
        "  mov %rsp, " OUT "+32\n"
        "  mov " IN "+2432, %rsp\n"
        "  pushfq\n"
        "  pop " OUT "+136\n"
        "  cld\n"
        ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  vmovups %ymm\\i, " OUT "+656+32*\\i\n"
        ".endr\n"
        "  fxsave64 " IN "+0x2200\n"
        "  fninit\n"
        "  vzeroupper\n"
        "  movl $0x1f80, -8(%rsp)\n"
        "  ldmxcsr -8(%rsp)\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n"
        "  ret\n");

static sigjmp_buf back;
static volatile struct native_result *now;

/* XSAVE area of the signal frame: FXSAVE image, header, AVX part at 576. */
static void on_signal(int sig, siginfo_t *info, void *context)
{
        const ucontext_t *u = context;
        const greg_t *g = u->uc_mcontext.gregs;
        static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                       REG_R12, REG_R13, REG_R14, REG_R15 };
        struct native_result *r = (struct native_result *)now;
        (void)sig;
        (void)info;
        for (unsigned i = 0; i < 16; i++)
                r->state.gpr[i] = (uint64_t)g[order[i]];
        r->state.rip = (uint64_t)g[REG_RIP];
        r->state.rflags = (uint64_t)g[REG_EFL];
        r->vector = (int)g[REG_TRAPNO];
        r->error = (uint64_t)g[REG_ERR];
        r->cr2 = (uint64_t)g[REG_CR2];
        const uint8_t *fp = (const uint8_t *)u->uc_mcontext.fpregs;
        uint64_t xstate;
        memcpy(r->state.fx, fp, 512);
        memcpy(&xstate, fp + 512, 8);
        for (unsigned i = 0; i < 16; i++) {
                memcpy(r->state.ymm[i], fp + 160 + 16 * i, 16);
                if (xstate & 4)
                        memcpy(r->state.ymm[i] + 16, fp + 576 + 16 * i, 16);
                else
                        memset(r->state.ymm[i] + 16, 0, 16);
                if (!(xstate & 2))
                        memset(r->state.ymm[i], 0, 16);
        }
        siglongjmp(back, 1);
}

static bool sandbox(void)
{
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
               prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void *fixed(uint64_t address, size_t size)
{
        return mmap((void *)(uintptr_t)address, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void run_case(const struct native_case *c, struct native_result *r)
{
        uint8_t *code = (uint8_t *)(uintptr_t)NATIVE_CODE;
        uint8_t *data = (uint8_t *)(uintptr_t)NATIVE_DATA;
        static_assert(offsetof(struct stub_area, exit) == 2448, "NATIVE_LEAVE");
        native_fill(c->data_seed, data);
        memset(code, 0xcc, NATIVE_CODE_BYTES);
        memcpy(code, c->code, c->code_size);
        memcpy(code + c->code_size, NATIVE_LEAVE, NATIVE_LEAVE_SIZE);
        AREA->in = c->state;
        AREA->target = NATIVE_CODE;
        AREA->exit[0] = (uint64_t)(uintptr_t)native_exit;
        memcpy((uint8_t *)AREA + 0x2000, c->state.fx, 512);
        now = r;
        if (sigsetjmp(back, 0) == 0) {
                native_enter();
                r->state = AREA->out;
                memcpy(r->state.fx, (uint8_t *)AREA + 0x2200, 512);
                r->state.rip = NATIVE_CODE + c->code_size;
                r->vector = -1;
        } else {
                uint32_t mxcsr = 0x1f80;
                __asm__ volatile("fninit\n\tcld\n\tldmxcsr %0" : : "m"(mxcsr));
        }
        r->data_hash = native_hash(data);
        r->done = true;
}

static int child(uint64_t seed, uint64_t first, unsigned count, bool bits32,
                 struct native_result *results)
{
        static uint8_t stack[1 << 16];
        stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
        struct sigaction sa = { .sa_sigaction = on_signal,
                                .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
        static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
        if (fixed(NATIVE_CODE, NATIVE_CODE_BYTES) == MAP_FAILED ||
            fixed(NATIVE_DATA, NATIVE_DATA_BYTES) == MAP_FAILED ||
            fixed(NATIVE_RODATA, 0x1000) == MAP_FAILED ||
            fixed(NATIVE_STATE, 0x3000) == MAP_FAILED || sigaltstack(&ss, NULL) < 0)
                return 2;
        memset((void *)(uintptr_t)NATIVE_RODATA, 0x5a, 0x1000);
        mprotect((void *)(uintptr_t)NATIVE_RODATA, 0x1000, PROT_READ);
        mprotect((void *)(uintptr_t)NATIVE_DATA, NATIVE_DATA_BYTES, PROT_READ | PROT_WRITE);
        for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
                sigaction(signals[i], &sa, NULL);
        if (!sandbox())
                return 2;
        for (unsigned i = 0; i < count; i++) {
                struct native_case c;
                native_make(seed, first + i, bits32, &c);
                run_case(&c, &results[i]);
        }
        return 0;
}

bool native_run(uint64_t seed, uint64_t first, unsigned count, bool bits32,
                struct native_result *results)
{
        memset(results, 0, count * sizeof(*results));
        pid_t pid = fork();
        if (pid == 0)
                _exit(child(seed, first, count, bits32, results));
        int status;
        return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
               WEXITSTATUS(status) == 0;
}
