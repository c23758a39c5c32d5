/* Interrupts, NMIs, INIT and SIPI: when they are taken. Guest code is assembled by the compiler's
 * assembler. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static int irq_vector = -1;
static struct cpu *irq_cpu;
static uint32_t port_value; /* the last that was written to any port */

static int on_acknowledge(void *arg)
{
        (void)arg;
        int vector = irq_vector;
        irq_vector = -1;
        cpu_set_irq(irq_cpu, false);
        return vector;
}

static void on_pio_write(void *arg, uint16_t port, unsigned size, uint32_t value)
{
        (void)arg, (void)port, (void)size;
        port_value = value;
}

static void setup(struct guest *g)
{
        guest_create(g);
        g->bus.pio_write = on_pio_write;
        g->bus.interrupt_acknowledge = on_acknowledge;
        irq_cpu = g->cpu;
        irq_vector = -1;
        port_value = 0;
}

static struct cpu_state *setup_code(struct guest *g, bool user, const uint8_t *code,
                                    const uint8_t *end)
{
        setup(g);
        return guest_code(g, user, code, end);
}

GUEST_CODE(sti_code, 64, "sti; inc rax; inc rax; 1: jmp 1b");

static void an_interrupt_waits_for_the_shadow_of_sti(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, sti_code, sti_code_end);
        s->rflags = 2;
        s->gpr[CPU_RAX] = 0;
        irq_vector = 0x41;
        cpu_set_irq(g.cpu, true);
        struct guest_end end = guest_run(&g, 1000);
        assert_int_equal(end.vector, 0x41);
        assert_int_equal(s->gpr[CPU_RAX], 1);
        assert_int_equal(end.rip, USER_CODE + 4);
        assert_int_equal(end.rflags & 0x200, 0x200);
        assert_int_equal(s->rflags & 0x200, 0); /* interrupt gate */
        guest_destroy(&g);
}

GUEST_CODE(halt_code, 64, "sti; hlt; inc rax; 1: jmp 1b");

static void halt_wakes_on_interrupt_and_nmi_uses_its_stack(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, halt_code, halt_code_end);
        s->rflags = 2;                     /* STI casts a shadow, on HLT only */
        g.ram[GUEST_IDT + 2 * 16 + 4] = 1; /* NMI on IST 1 */
        uint64_t ist = 0x2c000;
        memcpy(g.ram + GUEST_TSS + 36, &ist, 8);
        assert_int_equal(cpu_run(g.cpu, 1000), CPU_EXIT_HALT);
        assert_int_equal(s->rip, USER_CODE + 2);
        assert_false(cpu_has_work(g.cpu));
        cpu_raise_nmi(g.cpu);
        assert_true(cpu_has_work(g.cpu));
        struct guest_end end = guest_run(&g, 1000);
        assert_int_equal(end.vector, 2);
        assert_int_equal(end.rip, USER_CODE + 2);
        assert_int_equal(s->gpr[CPU_RSP], ist - 40);
        cpu_raise_nmi(g.cpu); /* blocked until IRET */
        assert_int_equal(cpu_run(g.cpu, 1000), CPU_EXIT_HALT);
        assert_int_equal(s->gpr[CPU_RSP], ist - 40);
        guest_destroy(&g);
}

GUEST_CODE(flag_code, 64,
           "cli; mov eax, 5; cmp eax, 6; sti; pushf; pop r8; cmp eax, 5; cli; pushf; pop r9\n"
           "mov rcx, gs:[0]; swapgs; mov rdx, gs:[0]; ud2");

static void interrupt_flag_and_gs_change_alone_and_in_ring_0(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, flag_code, flag_code_end);
        const uint64_t words[] = { 11, 22 };
        memcpy(g.ram + GUEST_FREE + 0x2000, words, sizeof(words));
        s->seg[CPU_GS].base = USER_DATA;
        s->kernel_gs_base = USER_DATA + 8;
        cpu_state_changed(g.cpu);
        assert_int_equal(guest_run(&g, 100).vector, 6);
        assert_int_equal(s->gpr[8] & 0xad5, 0x295); /* CF PF AF SF IF */
        assert_int_equal(s->gpr[9] & 0xad5, 0x44);  /* ZF PF */
        assert_int_equal(s->gpr[CPU_RCX], 11);
        assert_int_equal(s->gpr[CPU_RDX], 22);
        assert_int_equal(s->kernel_gs_base, USER_DATA);
        /* The same code in ring 1, which may not. */
        s->rip = USER_CODE;
        s->activity = CPU_RUNNING;
        s->seg[CPU_CS].attributes = 0xa0bb;
        s->seg[CPU_CS].selector = GUEST_CODE64 | 1;
        s->seg[CPU_SS] = s->seg[CPU_DS];
        s->seg[CPU_SS].attributes |= 0x20;
        s->seg[CPU_SS].selector |= 1;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 13);
        assert_int_equal(end.rip, USER_CODE);
        guest_destroy(&g);
}

GUEST_CODE(nop_code, 64, "nop; ud2");

static void of_many_nmis_two_are_taken(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_code(&g, false, nop_code, nop_code_end);
        memcpy(g.ram + GUEST_HANDLERS + 32, "\x49\xff\xc0\x48\xcf", 5); /* inc r8; iretq */
        s->gpr[8] = 0;
        for (unsigned i = 0; i < 3; i++)
                cpu_raise_nmi(g.cpu);
        assert_int_equal(guest_run(&g, 100).vector, 6);
        assert_int_equal(s->gpr[8], 2);
        guest_destroy(&g);
}

static void an_application_processor_starts_by_init_and_sipi(void **state)
{
        (void)state;
        struct guest g;
        setup(&g);
        struct cpu *ap;
        assert_int_equal(cpu_create(&g.bus, 1, &ap, NULL), 0);
        assert_int_equal(cpu_run(ap, 10), CPU_EXIT_WAIT_SIPI);
        memcpy(g.ram + 0x9000, "\xb0\x41\xe6\xe9\xf4", 5); /* mov al,'A'; out 0xe9,al; hlt */
        cpu_raise_init(ap);
        cpu_raise_sipi(ap, 9);
        assert_int_equal(cpu_run(ap, 10), CPU_EXIT_HALT);
        assert_int_equal(port_value, 'A');
        cpu_destroy(ap);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_interrupt_waits_for_the_shadow_of_sti),
                cmocka_unit_test(halt_wakes_on_interrupt_and_nmi_uses_its_stack),
                cmocka_unit_test(interrupt_flag_and_gs_change_alone_and_in_ring_0),
                cmocka_unit_test(of_many_nmis_two_are_taken),
                cmocka_unit_test(an_application_processor_starts_by_init_and_sipi),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
