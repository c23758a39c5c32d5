/* Around translated code: the cache, the trampolines, what it calls, its faults. */
#include "cpu/translate.h"

#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "cpu/emit.h"
#include "cpu/exec.h"
#include "cpu/profile.h"

#define FIELD(name)       ((uint32_t)offsetof(struct cpu, name))
#define GPR(n)            (FIELD(s.gpr) + 8u * (n))
#define EMIT_MOVUPS_LOAD  0x10
#define EMIT_MOVUPS_STORE 0x11
#define CC_NOT_ZERO       5
#define HWCAP2_FSGSBASE_  2u
#define CPUID7_EBX_BMI2   (1u << 8)

/* ---- trampolines ---- */

static void emit_raw(struct emitter *e, const char *bytes, unsigned size)
{
        memcpy(e->at, bytes, size);
        e->at += size;
}
#define RAW(e, bytes) emit_raw(e, bytes, sizeof(bytes) - 1)

/* Guest state from struct cpu into the registers, then on to `target`. */
static void emit_load_state(struct emitter *e)
{
        emit_gs32(e, EMIT_LOAD, CPU_RAX, FIELD(s.rflags));
        RAW(e, "\x89\xc1"     /* mov ecx, eax */
               "\xc1\xe9\x0b" /* shr ecx, 11 */
               "\x83\xe1\x01" /* and ecx, 1 */
               "\x80\xc1\x7f" /* add cl, 0x7f: OF */
               "\x88\xc4"     /* mov ah, al */
               "\x9e");       /* sahf: the others */
        for (unsigned r = 0; r < 16; r++)
                if (r != CPU_RSP)
                        emit_gs(e, EMIT_LOAD, r, GPR(r));
        emit_gs(e, EMIT_LOAD, CPU_RSP, GPR(CPU_RSP));
        emit_gs_jump(e, FIELD(target));
}

/* A vector register, all of it where `wide`, and its place in struct cpu. */
static void emit_vector(struct emitter *e, unsigned opcode, bool wide, unsigned n)
{
        emit1(e, EMIT_GS_PREFIX);
        if (wide) {
                emit1(e, 0xc5);
                emit1(e, (n & 8 ? 0 : 0x80) | 0x7c);
        } else {
                if (n & 8)
                        emit1(e, 0x44);
                emit1(e, 0x0f);
        }
        emit1(e, opcode);
        emit_field(e, n, FIELD(s.vec) + 32u * n);
}

static uint32_t emit_load_vectors(struct translator *t, struct emitter *e, bool wide)
{
        uint32_t at = (uint32_t)(e->at - t->writable);
        for (unsigned n = 0; n < 16; n++)
                emit_vector(e, EMIT_MOVUPS_LOAD, wide, n);
        emit_gs_set32(e, FIELD(vec_parked), false);
        emit_gs_jump(e, FIELD(back));
        return at;
}

/* Vector registers that are not in struct cpu go there. Flags are lost. */
static void emit_park_vectors(struct emitter *e)
{
        emit_gs_is_zero(e, FIELD(vec_parked));
        uint8_t *parked = emit_jump_if(e, CC_NOT_ZERO);
        emit_gs_is_zero(e, FIELD(uppers));
        uint8_t *wide = emit_jump_if(e, CC_NOT_ZERO);
        for (unsigned n = 0; n < 16; n++)
                emit_vector(e, EMIT_MOVUPS_STORE, false, n);
        uint8_t *done = emit_jump(e);
        emit_patch(wide, e->at);
        for (unsigned n = 0; n < 16; n++)
                emit_vector(e, EMIT_MOVUPS_STORE, true, n);
        RAW(e, "\xc5\xf8\x77");   /* vzeroupper */
        emit1(e, EMIT_GS_PREFIX); /* and dword gs:[uppers], UPPERS_USED */
        emit1(e, 0x83);
        emit_field(e, 4, FIELD(uppers));
        emit1(e, UPPERS_USED);
        emit_patch(done, e->at);
        emit_gs_set32(e, FIELD(vec_parked), true);
        emit_patch(parked, e->at);
}

static void emit_save_state(struct emitter *e)
{
        for (unsigned r = 0; r < 16; r++)
                emit_gs(e, EMIT_STORE, r, GPR(r));
        emit_gs(e, EMIT_LOAD, CPU_RSP, FIELD(host_rsp));
        RAW(e, "\x9f"               /* lahf */
               "\x0f\x90\xc0"       /* seto al */
               "\x0f\xb6\xcc"       /* movzx ecx, ah */
               "\x0f\xb6\xd0"       /* movzx edx, al */
               "\x81\xe1\xd5\0\0\0" /* and ecx, 0xd5 */
               "\xc1\xe2\x0b"       /* shl edx, 11 */
               "\x09\xd1");         /* or ecx, edx */
        emit_gs32(e, EMIT_LOAD, CPU_RDX, FIELD(s.rflags));
        RAW(e, "\x81\xe2"); /* and edx, ~arithmetic */
        emit4(e, ~FLAGS_ARITHMETIC);
        RAW(e, "\x09\xd1"); /* or ecx, edx */
        emit_gs32(e, EMIT_STORE, CPU_RCX, FIELD(s.rflags));
        emit_park_vectors(e);
}

static void emit_epilogue(struct emitter *e)
{
        RAW(e, "\x48\x83\xc4\x08"                 /* add rsp, 8 */
               "\x41\x5f\x41\x5e\x41\x5d\x41\x5c" /* pop r15 r14 r13 r12 */
               "\x5d\x5b\xc3");                   /* pop rbp rbx; ret */
}

/* The x87 pointers as the block's own code would have left them before `x->step`. */
static void catch_up_x87(struct cpu *cpu, const struct translated_exit *x, uint64_t next)
{
        const struct step *last = &x->block->steps[x->x87 - 1];
        for (const struct step *s = last; s <= translated_step(x); s++)
                next -= s->i.length;
        cpu->fip = next;
        cpu->fop = x87_opcode(&last->i);
}

static void choose_vec_loader(struct cpu *cpu)
{
        const struct translator *t = &cpu->translator;
        cpu->vec_loader = t->executable + (cpu->uppers ? t->load_ymm : t->load_xmm);
}

/* Where to go on in a block at `code`, its state in the host's registers. */
static const uint8_t *back_into(struct cpu *cpu, const struct block *b, const uint8_t *code)
{
        if (b->uses & BLOCK_X87)
                cpu_x87_load(cpu);
        if (!(b->uses & BLOCK_VECTORS))
                return code;
        cpu->back = code;
        return cpu->vec_loader;
}

/* Whether the dispatcher has something to see to before the next instruction. */
static bool dispatcher_wanted(struct cpu *cpu)
{
        uint32_t pending = atomic_load_explicit(&cpu->pending, memory_order_relaxed);
        if (pending && (pending != PEND_IRQ || cpu->s.rflags & FLAG_IF))
                return true;
        return cpu->code_changed || cpu->slow || cpu->s.activity != CPU_RUNNING ||
               cpu->s.nmi_pending;
}

/* Performs a helper step. The code address to go on at, or NULL to leave. */
static const uint8_t *helper_step(struct cpu *cpu, uint32_t index)
{
        const struct translated_exit *x = &cpu->translator.exits[index];
        const struct step *step = translated_step(x);
        uint64_t next = cpu->page_linear + (uint64_t)(int64_t)x->offset;
        const uint8_t *resume = cpu->translator.executable + x->resume;
        if (x->kind == EXIT_LOAD_X87) {
                cpu_x87_load(cpu);
                return resume;
        }
        if (x->x87)
                catch_up_x87(cpu, x, next);
        cpu->counters.helper_steps++;
        if (unlikely(cpu->profile))
                cpu_profile_helper(cpu, step);
        cpu->block = x->block;
        cpu->block_page = x->block->gpa & ~PAGE_MASK;
        cpu->code_changed = false;
        cpu->step = step;
        cpu->end = step + 1;
        cpu->s.rip = next;
        step->run(cpu, step);
        cpu->step = NULL;
        choose_vec_loader(cpu);
        if (unlikely(dispatcher_wanted(cpu)))
                return NULL;
        /* In the shadow of STI an instruction must follow: no way out of the block, which may
         * look at interrupts first. */
        bool follows = !cpu->s.interrupt_shadow || !x->last;
        if (x->resume && cpu->s.rip == next && cpu->translate_key == x->block->key && follows) {
                cpu->s.interrupt_shadow = false;
                return back_into(cpu, x->block, resume);
        }
        const uint8_t *code = cpu_jump_find(cpu);
        if (!code)
                cpu->came_from = x; /* for the next time */
        return code;
}

static void emit_trampolines(struct translator *t)
{
        struct emitter e = { t->writable + 16 };
        uint32_t enter = (uint32_t)(e.at - t->writable);
        RAW(&e, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57" /* push rbx rbp r12 - r15 */
                "\x48\x83\xec\x08");                       /* sub rsp, 8 */
        emit_gs(&e, EMIT_STORE, CPU_RSP, FIELD(host_rsp));
        emit_gs(&e, EMIT_STORE, CPU_RSI, FIELD(target));
        emit_load_state(&e);
        t->leave = (uint32_t)(e.at - t->writable);
        emit_save_state(&e);
        RAW(&e, "\xb8\x01\0\0\0"); /* mov eax, 1 */
        emit_epilogue(&e);
        t->helper = (uint32_t)(e.at - t->writable);
        emit_save_state(&e);
        emit_gs(&e, EMIT_LOAD, CPU_RDI, FIELD(self));
        emit_gs32(&e, EMIT_LOAD, CPU_RSI, FIELD(exit_index));
        RAW(&e, "\x48\xb8"); /* mov rax, helper_step */
        emit8(&e, (uint64_t)(uintptr_t)helper_step);
        RAW(&e, "\xff\xd0"       /* call rax */
                "\x48\x85\xc0"); /* test rax, rax */
        uint8_t *out = emit_jump_if(&e, 4);
        emit_gs(&e, EMIT_STORE, CPU_RAX, FIELD(target));
        emit_load_state(&e);
        emit_patch(out, e.at);
        emit_epilogue(&e); /* rax is 0 */
        t->recover = (uint32_t)(e.at - t->writable);
        RAW(&e, "\x41\xff\xe1"); /* jmp r9 */
        t->load_xmm = emit_load_vectors(t, &e, false);
        t->load_ymm = emit_load_vectors(t, &e, true);
        t->fixed = t->used = (uint32_t)(e.at - t->writable);
        t->enter = (const uint8_t *(*)(struct cpu *, const uint8_t *))(uintptr_t)(t->executable +
                                                                                  enter);
}

/* ---- the cache ---- */

static bool host_can(void)
{
        uint32_t a, b, c, d;
        return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_ && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
               b & CPUID7_EBX_BMI2;
}

int cpu_translator_create(struct cpu *cpu, struct err *err)
{
        struct translator *t = &cpu->translator;
        cpu->self = cpu;
        cpu->page_number_bits = (uint64_t)(TLB_ENTRIES - 1) << 12;
        cpu->page_bits = ~PAGE_MASK;
        cpu->no_if_bits = ~(uint64_t)FLAG_IF;
        cpu->direction_bits = FLAG_DF;
        cpu->arithmetic_bits = FLAGS_ARITHMETIC;
        cpu->pushed_bits = ~(uint64_t)(FLAGS_ARITHMETIC | RF_RF | RF_VM);
        cpu_jumps_init(cpu);
        if (!host_can())
                return 0;
        int r = cpu_code_memory_create(t, cpu->profile != NULL, err);
        if (r < 0)
                return r;
        t->exits = mmap(NULL, TRANSLATE_EXITS * sizeof(*t->exits), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        t->faults = mmap(NULL, TRANSLATE_FAULTS * sizeof(*t->faults), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        /* Taken from the start without gaps, a large one each 16,000 blocks or so. */
        (void)madvise(t->exits, TRANSLATE_EXITS * sizeof(*t->exits), MADV_HUGEPAGE);
        if (t->exits == MAP_FAILED || t->faults == MAP_FAILED)
                return err_set(err, ENOMEM, "map memory for translated code");
        emit_trampolines(t);
        t->on = true;
        return 0;
}

static void unmap(const void *at, size_t size)
{
        if (at && at != MAP_FAILED)
                munmap((void *)(uintptr_t)at, size);
}

void cpu_translator_destroy(struct cpu *cpu)
{
        struct translator *t = &cpu->translator;
        cpu_code_memory_destroy(t);
        unmap(t->exits, TRANSLATE_EXITS * sizeof(*t->exits));
        unmap(t->faults, TRANSLATE_FAULTS * sizeof(*t->faults));
        *t = (struct translator){ 0 };
}

void cpu_translator_flush(struct cpu *cpu)
{
        struct translator *t = &cpu->translator;
        t->used = t->fixed;
        t->stubs_used = 0;
        t->exits_length = t->faults_length = 0;
        cpu->came_from = NULL;
        cpu_jumps_flush(cpu, true);
        cpu->counters.code_flushes++;
}

/* ---- running ---- */

/* Leads a jump to `b` from now on. */
static void chain(const struct translator *t, const struct translated_exit *x,
                  const struct block *b)
{
        const struct block *from = x->block;
        if (from->temporaries == b->temporaries)
                emit_patch(t->writable + x->patch,
                           t->writable + (from->uses & BLOCK_VECTORS ? b->warm : b->spilled));
        else if (from->temporaries == TRANSLATE_COMMON)
                emit_patch(t->writable + x->patch, t->writable + b->common);
        else
                emit_patch(t->writable + x->patch_plain, t->writable + b->code);
}

/* The last exit led here: next time it shall need no dispatcher. */
static void connect(struct cpu *cpu, const struct translated_exit *x, const struct block *b)
{
        const struct translator *t = &cpu->translator;
        const struct block *from = x->block;
        bool same_page = x->kind == EXIT_DIRECT && (unsigned)x->offset < PAGE_SIZE_BYTES;
        if (same_page) {
                bool alike = (from->gpa ^ b->gpa) >> 12 == 0 && from->key == b->key &&
                             from->generation == b->generation;
                if (x->patch && alike && b->page2)
                        cpu_translate_bridge(cpu, x);
                else if (x->patch && alike)
                        chain(t, x, b);
                return;
        }
        cpu_jump_remember(cpu, b);
}

/* A jump to an address that is none faults at the jump, as if it had not begun. */
static void undo_jump(struct cpu *cpu, const struct translated_exit *x)
{
        const struct step *step = translated_step(x);
        cpu->s.gpr[CPU_RSP] -= x->pop_bytes;
        if (x->pushed)
                cpu->s.gpr[CPU_RSP] += 8;
        uint64_t next = cpu->page_linear + (x->block->gpa & PAGE_MASK);
        for (const struct step *s = x->block->steps; s <= step; s++)
                next += s->i.length;
        cpu->block = x->block;
        cpu->step = step;
        cpu->end = step + 1;
        cpu->s.rip = next;
        step->run(cpu, step);
        cpu->step = NULL;
}

/* For a profile: how translated code was left. */
static void note_exit(struct cpu *cpu, bool by_exit)
{
        const struct translated_exit *x = &cpu->translator.exits[cpu->exit_index];
        enum cpu_profile_exit way = PROFILE_LEFT_INDIRECT;
        if (!by_exit)
                way = PROFILE_LEFT_HELPER;
        else if (atomic_load_explicit(&cpu->poll, memory_order_relaxed))
                way = PROFILE_LEFT_POLLED;
        else if (x->kind == EXIT_DIRECT)
                way = PROFILE_LEFT_DIRECT;
        else if (translated_step(x)->i.op != OP_RET && translated_step(x)->i.op != OP_JMP_IND &&
                 translated_step(x)->i.op != OP_CALL_IND)
                way = PROFILE_LEFT_FAR;
        cpu_profile_left(cpu, way);
}

void cpu_translated_run(struct cpu *cpu, struct block *b)
{
        const struct translator *t = &cpu->translator;
        if (cpu->came_from)
                connect(cpu, cpu->came_from, b);
        cpu->came_from = NULL;
        cpu->counters.translated_runs++;
        cpu->page_linear = cpu->s.rip & ~PAGE_MASK;
        choose_vec_loader(cpu);
        bool by_exit = t->enter(cpu, t->executable + b->code);
        if (unlikely(cpu->profile))
                note_exit(cpu, by_exit);
        if (!by_exit)
                return; /* by a helper step: all is in place */
        const struct translated_exit *x = &t->exits[cpu->exit_index];
        if (x->kind == EXIT_INDIRECT) {
                cpu->s.rip = cpu->target;
                if (!canonical(cpu->target)) {
                        undo_jump(cpu, x);
                        return;
                }
        } else {
                cpu->s.rip = cpu->page_linear + (uint64_t)(int64_t)x->offset;
        }
        cpu->came_from = x;
}

/* ---- faults of the host ---- */

static struct sigaction previous[3];
static const int fault_signals[3] = { SIGSEGV, SIGFPE, SIGBUS };

static struct cpu *current_cpu(void)
{
        struct cpu *cpu;
        __asm__ volatile("rdgsbase %0" : "=r"(cpu));
        return cpu;
}

/* Offset of the stub for a fault at code offset `at`, 0 for none. */
static uint32_t fault_stub(const struct translator *t, uint32_t at)
{
        uint32_t low = 0, high = t->faults_length;
        while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                if (t->faults[middle].at < at)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < t->faults_length && t->faults[low].at == at ? t->faults[low].stub : 0;
}

/* Not ours: the fault happens again, under whoever cared for it before. */
static void pass_on(int signo)
{
        for (unsigned i = 0; i < 3; i++) {
                if (fault_signals[i] == signo)
                        sigaction(signo, &previous[i], NULL);
        }
}

static void host_fault(int signo, siginfo_t *info, void *context)
{
        (void)info;
        ucontext_t *uc = context;
        const struct cpu *cpu = current_cpu();
        if (cpu) {
                const struct translator *t = &cpu->translator;
                uint64_t at = (uint64_t)uc->uc_mcontext.gregs[REG_RIP] -
                              (uint64_t)(uintptr_t)t->executable;
                uint32_t stub = at < t->used ? fault_stub(t, (uint32_t)at) : 0;
                if (stub) {
                        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)(t->executable + stub);
                        return;
                }
        }
        pass_on(signo);
}

static void install_handlers(void)
{
        struct sigaction action = { .sa_sigaction = host_fault,
                                    .sa_flags = SA_SIGINFO | SA_ONSTACK };
        for (unsigned i = 0; i < 3; i++)
                sigaction(fault_signals[i], &action, &previous[i]);
}

void cpu_translator_enter(struct cpu *cpu)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        static __thread const struct cpu *prepared;
        if (!cpu->translator.on)
                return;
        if (prepared != cpu) {
                pthread_once(&once, install_handlers);
                stack_t stack = { .ss_sp = cpu->signal_stack,
                                  .ss_size = sizeof(cpu->signal_stack) };
                sigset_t faults;
                sigemptyset(&faults);
                for (unsigned i = 0; i < 3; i++)
                        sigaddset(&faults, fault_signals[i]);
                sigaltstack(&stack, NULL);
                pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
                prepared = cpu;
        }
        __asm__ volatile("wrgsbase %0" : : "r"(cpu));
}

void cpu_translator_leave(struct cpu *cpu)
{
        if (cpu->translator.on)
                __asm__ volatile("wrgsbase %0" : : "r"(0ull));
}
