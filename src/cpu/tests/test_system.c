/* System behaviour: modes, privilege transfers, devices, self-modifying code, units. Guest code is
 * assembled by the compiler's assembler. */
#include "cpu/decode.h"
#include "cpu/tests/guest.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char port_text[64];
static unsigned port_length;
static uint64_t mmio_last, mmio_address;
static unsigned mmio_size;

static void on_pio_write(void *arg, uint16_t port, unsigned size, uint32_t value)
{
        (void)arg;
        (void)size;
        if (port == 0xe9 && port_length < sizeof(port_text) - 1)
                port_text[port_length++] = (char)value;
}

static uint32_t on_pio_read(void *arg, uint16_t port, unsigned size)
{
        (void)arg;
        return port == 0x60 ? 0x12345678u >> (size == 1 ? 0 : 4) : 0xffffffff;
}

static uint64_t on_mmio_read(void *arg, uint64_t gpa, unsigned size)
{
        (void)arg;
        mmio_address = gpa;
        mmio_size = size;
        return 0x1122334455667788;
}

static void on_mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
        (void)arg;
        mmio_address = gpa;
        mmio_size = size;
        mmio_last = value;
}

static void setup(struct guest *g)
{
        guest_create(g);
        g->bus.pio_read = on_pio_read;
        g->bus.pio_write = on_pio_write;
        g->bus.mmio_read = on_mmio_read;
        g->bus.mmio_write = on_mmio_write;
        port_length = 0;
        memset(port_text, 0, sizeof(port_text));
}

static struct cpu_state *setup_code(struct guest *g, bool user, const uint8_t *code,
                                    const uint8_t *end)
{
        setup(g);
        return guest_code(g, user, code, end);
}

/* ---- from reset to long mode ---- */

/* Labels count from where the code is loaded; clang wants such sums outside operands. */
#define AT7C00(label) ".word " #label " - boot + 0x7c00"
GUEST_CODE(
        boot, 16,
        "cli; xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7000\n"
        "mov al, 'R'; out 0xe9, al\n"
        "push 0x1234; pop cx; cmp cx, 0x1234; jne boot_bad\n"
        ".byte 0x0f, 0x01, 0x16; " AT7C00(
                boot_gdtr) "\n" /* lgdt [boot_gdtr] */
                           "mov eax, cr0; or al, 1; mov cr0, eax\n"
                           ".byte 0xea; " AT7C00(
                                   boot_32) "; .word 8\n" /* jmp 8:boot_32 */
                                            "boot_bad: hlt\n"
                                            ".code32\n"
                                            "boot_32: mov ax, 0x10; mov ds, ax; mov ss, ax; mov "
                                            "esp, "
                                            "0x7000\n"
                                            "mov al, 'P'; out 0xe9, al\n"
                                            "mov eax, cr4; or eax, 0x20; mov cr4, eax\n"
                                            "mov eax, 0x1000; mov cr3, eax\n"
                                            "mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr\n"
                                            "mov eax, cr0; or eax, 0x80000000; mov cr0, eax\n"
                                            "mov al, 'C'; out 0xe9, al\n" /* compatibility mode now
                                                                           */
                                            ".byte 0xea; " AT7C00(
                                                    boot_64) "; .word 0, 0x18\n" /* jmp 0x18:boot_64
                                                                                  */
                                                             ".code64\n"
                                                             "boot_64: mov al, 'L'; out 0xe9, al\n"
                                                             "mov rax, 0x123456789abcdef0; mov "
                                                             "[0x6000], rax\n"
                                                             "mov ecx, 0xc0000080; rdmsr; mov "
                                                             "[0x6008], eax\n"
                                                             "hlt\n"
                                                             ".balign 8\n"
                                                             "boot_gdt: .quad 0, "
                                                             "0x00cf9b000000ffff, "
                                                             "0x00cf93000000ffff, "
                                                             "0x00af9b000000ffff\n"
                                                             "boot_gdtr: .word 31; " AT7C00(
                                                                     boot_gdt) "; .word 0\n");

static void boots_from_real_to_long_mode(void **state)
{
        (void)state;
        struct guest g;
        setup(&g);
        memcpy(g.ram + 0x7c00, boot, (size_t)(boot_end - boot));
        static const uint64_t tables[3] = { 0x2003, 0x3003, 0x83 }; /* one 2 MiB page */
        for (unsigned i = 0; i < 3; i++)
                memcpy(g.ram + 0x1000 + 0x1000 * i, &tables[i], 8);
        struct cpu_state *s = cpu_state(g.cpu);
        assert_int_equal(s->rip + s->seg[CPU_CS].base, 0xfffffff0);
        s->seg[CPU_CS].base = 0;
        s->seg[CPU_CS].selector = 0;
        s->rip = 0x7c00;
        cpu_state_changed(g.cpu);
        assert_int_equal(cpu_run(g.cpu, 10000), CPU_EXIT_HALT);
        assert_string_equal(port_text, "RPCL");
        uint64_t mark;
        uint32_t efer;
        memcpy(&mark, g.ram + 0x6000, 8);
        memcpy(&efer, g.ram + 0x6008, 4);
        assert_int_equal(mark, 0x123456789abcdef0);
        assert_int_equal(efer, 0x500);
        assert_int_equal(g.ram[0x3000] & 0x60, 0x60); /* accessed and dirty */
        guest_destroy(&g);
}

/* ---- privilege ---- */

GUEST_CODE(do_syscall, 64, "mov rdi, 7; syscall; mov r8, rax; ud2");
GUEST_CODE(kernel_entry, 64, "swapgs; mov rax, gs:[0]; add rax, rdi; swapgs; sysretq");

static void syscall_and_sysret_change_privilege(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, do_syscall, do_syscall_end);
        memcpy(g.ram + 0x29000, kernel_entry, (size_t)(kernel_entry_end - kernel_entry));
        uint64_t secret = 35;
        memcpy(g.ram + 0x2a000, &secret, 8);
        s->lstar = 0x29000;
        s->star = (uint64_t)GUEST_CODE64 << 32 | (uint64_t)(GUEST_USER64 - 16) << 48;
        s->sfmask = 0x200;
        s->kernel_gs_base = 0x2a000;
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(s->gpr[8], 42);
        assert_int_equal(end.cs, GUEST_USER64);
        assert_int_equal(end.rflags & 0x200, 0x200);
        assert_int_equal(s->gpr[11] & 0x200, 0x200);
        assert_int_equal(s->kernel_gs_base, 0x2a000);
        guest_destroy(&g);
}

GUEST_CODE(stepped_entry, 64, "mov r9, 1; sysretq");

/* The kernel masks TF: it is not stepped through, the trap comes back in user mode. */
static void syscall_is_stepped_over(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, do_syscall, do_syscall_end);
        memcpy(g.ram + 0x29000, stepped_entry, (size_t)(stepped_entry_end - stepped_entry));
        s->lstar = 0x29000;
        s->star = (uint64_t)GUEST_CODE64 << 32 | (uint64_t)(GUEST_USER64 - 16) << 48;
        s->sfmask = 0x300;
        s->rip = USER_CODE + 7; /* SYSCALL */
        s->rflags |= 0x100;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 1);
        assert_int_equal(end.cs, GUEST_USER64);
        assert_int_equal(end.rip, USER_CODE + 9);
        assert_int_equal(s->gpr[9], 1);
        assert_int_equal(s->dr6 & 0x4000, 0x4000);
        guest_destroy(&g);
}

GUEST_CODE(iret_user, 64,
           "push 0x2b; push 0x600800; push 0x202; push 0x33; lea rax, [rip+1f]; push rax; iretq\n"
           "1: cli; hlt");

GUEST_CODE(iret_reads_gs, 64,
           "push 0x2b; push 0x600800; push 0x202; push 0x33; lea rax, [rip+1f]; push rax; iretq\n"
           "1: mov rax, gs:[0]; mov ecx, gs; ud2");

static void a_segment_nulled_by_iret_keeps_its_base(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, iret_reads_gs, iret_reads_gs_end);
        guest_map(&g, USER_CODE, GUEST_FREE, GUEST_PTE_U | GUEST_PTE_W);
        guest_map(&g, USER_DATA, GUEST_FREE + 0x2000, GUEST_PTE_U | GUEST_PTE_W);
        memcpy(g.ram + GUEST_FREE + 0x2000, "inherits", 8);
        s->seg[CPU_GS] = (struct cpu_segment){ USER_DATA, 0xffffffff, 0xc093, GUEST_DATA, { 0 } };
        s->gpr[CPU_RCX] = 1;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_memory_equal(&s->gpr[CPU_RAX], "inherits", 8);
        assert_int_equal(s->gpr[CPU_RCX], 0);
        guest_destroy(&g);
}

GUEST_CODE(iret_with_nulls, 64,
           "mov eax, 3; mov ds, eax; mov es, eax; mov fs, eax; mov r8d, ds\n"
           "push 0x2b; push 0x600800; push 0x202; push 0x33; lea rax, [rip+1f]; push rax; iretq\n"
           "1: mov r9d, ds; mov r10d, es; mov r11d, fs; ud2");

static void null_selectors_lose_their_rpl_on_the_way_out(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, iret_with_nulls, iret_with_nulls_end);
        guest_map(&g, USER_CODE, GUEST_FREE, GUEST_PTE_U | GUEST_PTE_W);
        s->gpr[9] = s->gpr[10] = s->gpr[11] = 1;
        assert_int_equal(guest_run(&g, 100).vector, 6);
        assert_int_equal(s->gpr[8], 3);
        assert_int_equal(s->gpr[9] | s->gpr[10] | s->gpr[11], 0);
        guest_destroy(&g);
}

GUEST_CODE(adjusts, 32, "mov al, 0x47; aam; pushf; pop ebx; aad; pushf; pop ecx; ud2");

static void adjustments_of_decimals_clear_what_is_undefined(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, adjusts, adjusts_end);
        s->seg[CPU_CS].selector = GUEST_USER32;
        s->seg[CPU_CS].attributes = 0xc0fb;
        s->gpr[CPU_RSP] = USER_DATA + 0x1000;
        s->rflags |= 0x891; /* OF, SF, AF, CF */
        cpu_state_changed(g.cpu);
        assert_int_equal(guest_run(&g, 100).vector, 6);
        assert_int_equal(s->gpr[CPU_RBX] & 0x8d5, 0); /* 0x0701: nothing is set */
        assert_int_equal(s->gpr[CPU_RCX] & 0x8d5, 4); /* 0x47, of even parity */
        guest_destroy(&g);
}

GUEST_CODE(load_tr, 64, "mov eax, 0x48; ltr ax; ud2");

static void a_task_register_has_a_canonical_base(void **state)
{
        (void)state;
        struct guest g;
        setup_code(&g, false, load_tr, load_tr_end);
        static const uint64_t there[2] = { 0x0000890220000067, 0xffff8000 };
        static const uint64_t nowhere[2] = { 0x0000890220000067, 0xaaaaaaaa };
        memcpy(g.ram + GUEST_GDT + GUEST_TSS_SEL, there, sizeof(there));
        assert_int_equal(guest_run(&g, 100).vector, 6);
        guest_destroy(&g);
        setup_code(&g, false, load_tr, load_tr_end);
        memcpy(g.ram + GUEST_GDT + GUEST_TSS_SEL, nowhere, sizeof(nowhere));
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 13);
        assert_int_equal(end.error, GUEST_TSS_SEL);
        guest_destroy(&g);
}

GUEST_CODE(speculation, 64,
           "mov ecx, 0xc0010000; rdmsr; mov r9, rax\n"
           "mov ecx, 0x48; mov eax, 3; xor edx, edx; wrmsr; xor eax, eax; rdmsr; mov r8, rax\n"
           "mov ecx, 0x49; mov eax, 1; wrmsr; inc rbx; rdmsr; inc rbx; ud2");

static void speculation_registers_are_kept_or_written_only(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, speculation, speculation_end);
        s->gpr[CPU_RBX] = 0;
        s->gpr[CPU_RAX] = s->gpr[9] = 1;
        assert_int_equal(guest_run(&g, 100).vector, 13); /* at the read of the command */
        assert_int_equal(s->gpr[CPU_RBX], 1);
        assert_int_equal(s->gpr[8], 3);
        assert_int_equal(s->gpr[9], 0); /* an event counter that counts nothing */
        guest_destroy(&g);
}

GUEST_CODE(hypercall, 64,
           "mov ebx, 0x5; mov eax, 10; vmcall; mov r8, rax; mov eax, 11; vmmcall; ud2");

static uint64_t on_hypercall(void *arg, uint64_t number, const uint64_t args[4])
{
        (void)arg;
        return number * 100 + args[0];
}

static void hypercalls_go_to_the_bus_or_are_undefined(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, hypercall, hypercall_end);
        assert_int_equal(guest_run(&g, 100).rip, USER_CODE + 10);
        guest_destroy(&g);
        s = setup_code(&g, false, hypercall, hypercall_end);
        g.bus.hypercall = on_hypercall;
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(s->gpr[8], 1005);
        assert_int_equal(s->gpr[CPU_RAX], 1105);
        guest_destroy(&g);
        s = setup_code(&g, true, hypercall, hypercall_end);
        g.bus.hypercall = on_hypercall;
        assert_int_equal(guest_run(&g, 100).vector, 6);
        assert_int_equal(s->gpr[8], UINT64_MAX); /* EPERM: not for programs */
        guest_destroy(&g);
}

static void iret_enters_user_mode_which_may_not_mask_interrupts(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, iret_user, iret_user_end);
        guest_map(&g, USER_CODE, GUEST_FREE, GUEST_PTE_U | GUEST_PTE_W);
        guest_map(&g, USER_DATA, GUEST_FREE + 0x2000, GUEST_PTE_U | GUEST_PTE_W);
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 13);
        assert_int_equal(end.error, 0);
        assert_int_equal(end.cs, GUEST_USER64);
        assert_int_equal(end.rsp, 0x600800);
        assert_int_equal(s->seg[CPU_SS].selector, 0); /* null in the handler */
        guest_destroy(&g);
}

GUEST_CODE(privileged, 64, "hlt");

static void double_and_triple_faults(void **state)
{
        (void)state;
        struct guest g;
        setup_code(&g, true, privileged, privileged_end);
        memset(g.ram + GUEST_IDT + 13 * 16, 0, 16); /* no #GP gate: #GP inside #GP */
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 8);
        assert_int_equal(end.error, 0);
        guest_destroy(&g);
        setup_code(&g, true, privileged, privileged_end);
        memset(g.ram + GUEST_IDT, 0, 4096);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_SHUTDOWN);
        guest_destroy(&g);
}

/* ---- devices ---- */

GUEST_CODE(device_code, 64,
           "mov eax, [rbx]; mov word ptr [rbx+8], 0x55aa; in al, 0x60; mov r8, rax; ud2");

static void memory_without_a_slot_goes_to_the_bus(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, device_code, device_code_end);
        guest_map(&g, 0x700000, 0xfee00000, GUEST_PTE_W);
        s->gpr[CPU_RBX] = 0x700000;
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(s->gpr[8], 0x55667778); /* AL by IN, the rest by MMIO */
        assert_int_equal(mmio_address, 0xfee00008);
        assert_int_equal(mmio_size, 2);
        assert_int_equal(mmio_last, 0x55aa);
        guest_destroy(&g);
}

/* ---- self-modifying code ---- */

/* The store changes the immediate of an instruction further on in its block. */
GUEST_CODE(smc_near, 64, "mov byte ptr [rip+1f+1], 42; nop; 1: mov eax, 1; ud2");
/* Calls a function in the next page, changes it, calls it again. */
GUEST_CODE(smc_far, 64,
           "lea rdi, [rip+smc_far+0x1000]; call rdi; mov r8, rax\n"
           "mov byte ptr [rdi+1], 7; call rdi; ud2");

static void stores_into_code_take_effect_at_once(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, smc_near, smc_near_end);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(s->gpr[CPU_RAX], 42);
        guest_destroy(&g);

        s = setup_code(&g, true, smc_far, smc_far_end);
        memcpy(g.ram + GUEST_FREE + 0x1000, "\xb8\x05\x00\x00\x00\xc3", 6); /* mov eax,5; ret */
        end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(s->gpr[8], 5);
        assert_int_equal(s->gpr[CPU_RAX], 7);
        assert_true(cpu_counters(g.cpu)->blocks_invalidated > 0);
        guest_destroy(&g);
}

static void device_writes_into_code_are_seen(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, smc_near + 8, smc_near_end);
        guest_run(&g, 100);
        assert_int_equal(s->gpr[CPU_RAX], 1);
        memcpy(g.ram + GUEST_FREE, "\xb8\x09\x00\x00\x00\x0f\x0b", 7);
        cpu_memory_written(&g.memory, GUEST_FREE, 7);
        s->rip = USER_CODE;
        s->seg[CPU_CS].selector = GUEST_USER64;
        s->activity = CPU_RUNNING;
        guest_long_mode(&g, true);
        guest_map(&g, USER_CODE, GUEST_FREE, GUEST_PTE_U);
        s->rip = USER_CODE;
        guest_run(&g, 100);
        assert_int_equal(s->gpr[CPU_RAX], 9);
        guest_destroy(&g);
}

GUEST_CODE(count_down, 64, "mov ecx, 1000; xor eax, eax; 1: add eax, ecx; dec ecx; jnz 1b; ud2");

static void code_that_was_given_back_is_decoded_again(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, count_down, count_down_end);
        size_t before = cpu_code_bytes(g.cpu);
        for (unsigned turn = 0; turn < 2; turn++) {
                guest_long_mode(&g, true);
                guest_map(&g, USER_CODE, GUEST_FREE, GUEST_PTE_U);
                s->rip = USER_CODE;
                s->gpr[CPU_RAX] = 0;
                struct guest_end end = guest_run(&g, CPU_NO_BUDGET);
                assert_int_equal(end.vector, 6);
                assert_int_equal(s->gpr[CPU_RAX], 500500);
                assert_true(cpu_code_bytes(g.cpu) > before);
                /* What was dropped is still held. */
                cpu_flush(g.cpu);
                assert_true(cpu_code_bytes(g.cpu) > before);
                cpu_trim(g.cpu);
                assert_int_equal(cpu_code_bytes(g.cpu), before);
        }
        assert_true(cpu_counters(g.cpu)->blocks_decoded >= 4);
        guest_destroy(&g);
}

/* ---- units and features ---- */

GUEST_CODE(sse_code, 64, "addps xmm0, xmm1; ud2");
GUEST_CODE(x87_code, 64, "fld1; fld1; faddp; fistp dword ptr [rbx]; mov eax, [rbx]; ud2");
GUEST_CODE(evex_code, 64, ".byte 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1");
GUEST_CODE(cpuid_code, 64, "mov eax, 7; xor ecx, ecx; cpuid; mov r8, rbx; mov eax, 1; cpuid; ud2");

static void task_switched_raises_device_not_available(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, sse_code, sse_code_end);
        s->cr0 |= 8;
        cpu_state_changed(g.cpu);
        assert_int_equal(guest_run(&g, 100).vector, 7);
        guest_destroy(&g);
        s = setup_code(&g, true, sse_code, sse_code_end);
        s->cr4 &= ~0x200ull;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(end.rip, USER_CODE);
        guest_destroy(&g);
}

static void x87_state_is_complete_after_a_run(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, x87_code, x87_code_end);
        assert_int_equal(cpu_run(g.cpu, 2), CPU_EXIT_BUDGET);
        assert_int_equal(s->x87.tag, 0xc0);
        assert_int_equal(s->x87.status >> 11 & 7, 6);
        static const uint8_t one[10] = { 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f };
        assert_memory_equal(s->x87.st[0], one, 10);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(s->gpr[CPU_RAX], 2);
        guest_destroy(&g);
}

static void hidden_instructions_are_undefined_and_counted(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, evex_code, evex_code_end);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(end.rip, USER_CODE);
        assert_int_equal(cpu_counters(g.cpu)->unimplemented, 1);
        guest_destroy(&g);
        s = setup_code(&g, true, cpuid_code, cpuid_code_end);
        guest_run(&g, 100);
        assert_int_equal(s->gpr[8] & 0xdc230000, 0); /* AVX-512 of any kind */
        assert_int_equal(s->gpr[CPU_RCX] & 8, 0);    /* MONITOR */
        assert_int_equal(s->gpr[CPU_RCX] >> 31, 1);  /* a hypervisor */
        guest_destroy(&g);
}

GUEST_CODE(pushf_code, 64,
           "std; mov eax, 0x7fffffff; xor ecx, ecx; xor r9d, r9d; add eax, 1; pushf; seto r9b\n"
           "pop r8; cld; stc; pushf; adc ecx, 0; pop r10; pushfw; pop r11w; mov r12, rsp; ud2");

static void pushf_tells_all_flags_and_keeps_them(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, pushf_code, pushf_code_end);
        s->rflags |= 0x200000; /* ID */
        cpu_state_changed(g.cpu);
        uint64_t rsp = s->gpr[CPU_RSP], fixed = s->rflags & ~0xcd5ull;
        assert_int_equal(guest_run(&g, 100).vector, 6);
        assert_int_equal(s->gpr[8], fixed | 0xc94); /* OF DF SF AF PF */
        assert_int_equal(s->gpr[9], 1);
        assert_int_equal(s->gpr[10] & 0xc01, 0x801); /* ADD's OF, CF by STC */
        assert_int_equal(s->gpr[CPU_RCX], 1);
        assert_int_equal(s->gpr[11] & 1, 0); /* ADC's, by 16 bits */
        assert_int_equal(s->gpr[12], rsp);
        guest_destroy(&g);
}

GUEST_CODE(serialize_code, 64,
           "mov eax, 7; xor ecx, ecx; cpuid; .byte 0x0f, 0x01, 0xe8; mov r8d, 1; .byte 0x66, 0x0f, "
           "0x01, 0xe8");

static void serialize_is_there_for_kernels_and_programs(void **state)
{
        (void)state;
        for (unsigned user = 0; user < 2; user++) {
                struct guest g;
                struct cpu_state *s = setup_code(&g, user, serialize_code, serialize_code_end);
                struct guest_end end = guest_run(&g, 100);
                assert_int_equal(end.vector, 6); /* with a prefix it is another instruction */
                assert_int_equal(end.rip, USER_CODE + 18);
                assert_int_equal(s->gpr[8], 1);
                assert_int_equal(s->gpr[CPU_RDX] >> 14 & 1, 1);
                guest_destroy(&g);
        }
}

GUEST_CODE(distant_code, 64, "lea rax, [rip + 0x7fffffff]; .byte 0xe9; .long 0x7ffffff0");

static void distances_reach_as_far_as_they_say(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, distant_code, distant_code_end);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(s->gpr[CPU_RAX], USER_CODE + 7 + 0x7fffffffull);
        assert_int_equal(end.vector, 14);
        assert_int_equal(end.rip, USER_CODE + 12 + 0x7ffffff0ull);
        guest_destroy(&g);
}

/* ---- state and threads ---- */

GUEST_CODE(steps, 64, "inc rax; mov [rbx], rax; inc rax; ud2");

static void state_survives_saving(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, true, steps, steps_end);
        struct err err = { 0 };
        auto_buf saved = { 0 };
        cpu_run(g.cpu, 1);
        assert_int_equal(cpu_save(g.cpu, &saved, &err), 0);
        struct cpu_state before = *s;
        guest_run(&g, 100);
        assert_int_equal(cpu_load(g.cpu, saved.data, saved.size, &err), 0);
        assert_memory_equal(s, &before, sizeof(before));
        assert_int_equal(guest_run(&g, 100).vector, 6);
        assert_int_equal(cpu_load(g.cpu, saved.data, saved.size - 1, &err), -EINVAL);
        saved.data[8]++;
        assert_int_equal(cpu_load(g.cpu, saved.data, saved.size, &err), -EINVAL);
        assert_non_null(strstr(err_text(&err), "version"));
        guest_destroy(&g);
}

GUEST_CODE(spin_code, 64, "1: inc rax; jmp 1b");

static void *kick(void *cpu)
{
        cpu_kick(cpu);
        return NULL;
}

static void a_kick_from_another_thread_ends_the_run(void **state)
{
        (void)state;
        struct guest g;
        setup_code(&g, true, spin_code, spin_code_end);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, kick, g.cpu), 0);
        assert_int_equal(cpu_run(g.cpu, UINT64_MAX), CPU_EXIT_KICK);
        pthread_join(thread, NULL);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(boots_from_real_to_long_mode),
                cmocka_unit_test(syscall_and_sysret_change_privilege),
                cmocka_unit_test(syscall_is_stepped_over),
                cmocka_unit_test(iret_enters_user_mode_which_may_not_mask_interrupts),
                cmocka_unit_test(a_segment_nulled_by_iret_keeps_its_base),
                cmocka_unit_test(null_selectors_lose_their_rpl_on_the_way_out),
                cmocka_unit_test(adjustments_of_decimals_clear_what_is_undefined),
                cmocka_unit_test(a_task_register_has_a_canonical_base),
                cmocka_unit_test(speculation_registers_are_kept_or_written_only),
                cmocka_unit_test(hypercalls_go_to_the_bus_or_are_undefined),
                cmocka_unit_test(double_and_triple_faults),
                cmocka_unit_test(memory_without_a_slot_goes_to_the_bus),
                cmocka_unit_test(stores_into_code_take_effect_at_once),
                cmocka_unit_test(device_writes_into_code_are_seen),
                cmocka_unit_test(code_that_was_given_back_is_decoded_again),
                cmocka_unit_test(task_switched_raises_device_not_available),
                cmocka_unit_test(x87_state_is_complete_after_a_run),
                cmocka_unit_test(hidden_instructions_are_undefined_and_counted),
                cmocka_unit_test(pushf_tells_all_flags_and_keeps_them),
                cmocka_unit_test(serialize_is_there_for_kernels_and_programs),
                cmocka_unit_test(distances_reach_as_far_as_they_say),
                cmocka_unit_test(state_survives_saving),
                cmocka_unit_test(a_kick_from_another_thread_ends_the_run),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
