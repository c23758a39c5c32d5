#include "vmm/kvm/kvm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/soft/chips.h"

#define DEVICE "/dev/kvm"

/* ---- the machine's side ---- */

static void irq_line_kvm(void *provider, unsigned gsi, bool raised)
{
        const struct kvm_machine *k = provider;
        if (k->chips) {
                chips_line(k->chips, gsi, raised);
                return;
        }
        struct kvm_irq_level level = { .irq = gsi, .level = raised };
        (void)ioctl(k->vm_fd, KVM_IRQ_LINE, &level);
}

static void irq_message_kvm(void *provider, uint64_t address, uint32_t data)
{
        const struct kvm_machine *k = provider;
        struct kvm_msi msi = { .address_lo = (uint32_t)address,
                               .address_hi = (uint32_t)(address >> 32),
                               .data = data };
        (void)ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
}

static const struct irq_ops kvm_irq_ops = {
        .line = irq_line_kvm,
        .message = irq_message_kvm,
        .routes_open = kvm_routes_open,
        .route_take = kvm_route_take,
        .route_set = kvm_route_set,
        .route_send = kvm_route_send,
        .route_drop = kvm_route_drop,
};

static int check_capabilities(int fd, struct err *err)
{
        static const struct {
                int number;
                const char *name;
        } needed[] = {
                { KVM_CAP_IRQCHIP, "IRQCHIP" },     { KVM_CAP_USER_MEMORY, "USER_MEMORY" },
                { KVM_CAP_EXT_CPUID, "EXT_CPUID" }, { KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI" },
                { KVM_CAP_XSAVE, "XSAVE" },         { KVM_CAP_XCRS, "XCRS" },
                { KVM_CAP_DEBUGREGS, "DEBUGREGS" }, { KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT" },
                { KVM_CAP_MP_STATE, "MP_STATE" },   { KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS" },
        };
        int version = ioctl(fd, KVM_GET_API_VERSION, 0);
        if (version != KVM_API_VERSION)
                return err_plain(err, ENOSYS, DEVICE " speaks version %d of its interface, not %d",
                                 version, KVM_API_VERSION);
        for (unsigned i = 0; i < ELEMENTS(needed); i++)
                if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
                        return err_plain(err, ENOSYS,
                                         "this host's KVM lacks KVM_CAP_%s; --cpu soft does "
                                         "without",
                                         needed[i].name);
        return 0;
}

int kvm_give_slot(struct kvm_machine *k, unsigned i, uint32_t flags, struct err *err)
{
        const struct memory_slot *s = &k->machine->memory.slots[i];
        struct kvm_userspace_memory_region region = {
                .slot = i,
                .flags = flags,
                .guest_phys_addr = s->base.value,
                .memory_size = s->size_bytes,
                .userspace_addr = (uint64_t)(uintptr_t)s->host.bytes,
        };
        if (ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
                return err_set(err, errno, "memory at 0x%llx under KVM",
                               (unsigned long long)s->base.value);
        return 0;
}

static int give_memory(struct kvm_machine *k, struct err *err)
{
        const struct memory *memory = &k->machine->memory;
        int r = 0;
        for (unsigned i = 0; r == 0 && i < memory->length; i++) {
                const struct memory_slot *s = &memory->slots[i];
                r = kvm_give_slot(k, i, 0, err);
                k->memory.slots[k->memory.length++] = (struct cpu_slot){ s->base.value,
                                                                         s->size_bytes,
                                                                         s->host.bytes, false };
        }
        return r < 0 ? r : cpu_memory_init(&k->memory, err);
}

/* Where lines go: below 16 to the PICs too; the PIT to pin 2 of the IOAPIC, as the MADT says,
 * and not where KVM's own routes have it. */
static int route_lines(struct kvm_machine *k, struct err *err)
{
        static_assert(LAYOUT_GSIS + 16 <= KVM_ROUTES_LINES, "room for lines");
        struct kvm_irq_routing_entry lines[KVM_ROUTES_LINES] = { 0 };
        unsigned length = 0;
        for (unsigned gsi = 0; gsi < LAYOUT_GSIS; gsi++) {
                struct kvm_irq_routing_entry *e = &lines[length];
                if (gsi == 2) /* the second PIC's */
                        continue;
                *e = (struct kvm_irq_routing_entry){ .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP };
                e->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
                e->u.irqchip.pin = gsi == LAYOUT_IRQ_PIT ? 2 : gsi;
                length++;
                if (gsi >= 16)
                        continue;
                e[1] = e[0];
                e[1].u.irqchip.irqchip = gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
                e[1].u.irqchip.pin = gsi % 8;
                length++;
        }
        int r = kvm_routes_lines(k, lines, length);
        return r < 0 ? err_set(err, -r, "routes of KVM's interrupts") : 0;
}

/* In the kernel, as a whole or for their most part. */
static int make_chips(struct kvm_machine *k, bool split, struct err *err)
{
        if (split)
                return kvm_split_create(k, err);
        if (ioctl(k->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
                return err_set(err, errno, "KVM's interrupt chips");
        return route_lines(k, err);
}

static int make_vm(struct kvm_machine *k, bool split, struct err *err)
{
        uint64_t identity = LAYOUT_KVM_IDENTITY;
        k->fd = open(DEVICE, O_RDWR | O_CLOEXEC);
        if (k->fd < 0)
                return err_set(err, errno, "open " DEVICE "; --cpu soft does without");
        int r = check_capabilities(k->fd, err);
        if (r < 0)
                return r;
        k->vm_fd = ioctl(k->fd, KVM_CREATE_VM, 0);
        if (k->vm_fd < 0)
                return err_set(err, errno, "create a VM under KVM");
        if (ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
            ioctl(k->vm_fd, KVM_SET_TSS_ADDR, LAYOUT_KVM_TSS) < 0)
                return err_set(err, errno, "pages that KVM wants for itself");
        /* Before the chips: a new slot waits for whoever reads the old ones (SRCU), and behind what
         * chips leave to be freed later, which takes the kernel 4 to 7 ms. */
        r = give_memory(k, err);
        if (r < 0)
                return r;
        kvm_choose_dirty(k);
        kvm_routes_create(k);
        r = make_chips(k, split, err);
        if (r < 0)
                return r;
        int flags = ioctl(k->fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);
        k->debug_flags = flags > 0 ? (uint32_t)flags : 0;
        int size = ioctl(k->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
        if (size < (int)sizeof(struct kvm_run))
                return err_plain(err, EIO, "KVM's shared page of a vCPU has %d bytes", size);
        k->run_size = (size_t)size;
        return kvm_read_cpuid(k->fd, &k->cpuid, err);
}

static void kvm_detach(struct machine *m)
{
        struct kvm_machine *k = m->provider;
        cpu_memory_finish(&k->memory);
        kvm_split_destroy(k);
        kvm_routes_destroy(k);
        close_fd(&k->vm_fd);
        close_fd(&k->fd);
        free(k->cpuid);
        free(k);
        m->irq = (struct irq){ 0 };
        m->provider = NULL;
}

static int attach(struct machine *m, bool split, struct err *err)
{
        struct kvm_machine *k = new0(struct kvm_machine);
        k->machine = m;
        k->fd = k->vm_fd = -1;
        m->provider = k;
        int r = make_vm(k, split, err);
        if (r < 0) {
                kvm_detach(m);
                return r;
        }
        m->irq = (struct irq){ &kvm_irq_ops, k };
        return 0;
}

static int kvm_attach(struct machine *m, struct err *err)
{
        return attach(m, false, err);
}

static int kvm_attach_split(struct machine *m, struct err *err)
{
        return attach(m, true, err);
}

static int kvm_notify_fd(struct machine *m, uint64_t address, int fd, bool set)
{
        const struct kvm_machine *k = m->provider;
        struct kvm_ioeventfd e = {
                .addr = address, .len = 0, .fd = fd, .flags = set ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN
        };
        return ioctl(k->vm_fd, KVM_IOEVENTFD, &e) < 0 ? -errno : 0;
}

/* ---- vCPUs ---- */

/* Only makes KVM_RUN return. */
static void kicked(int signo)
{
        (void)signo;
}

static int kick_signal(void)
{
        return SIGRTMIN;
}

static void prepare_thread(struct kvm_vcpu *v)
{
        struct sigaction action = { .sa_handler = kicked };
        sigset_t kick;
        sigaction(kick_signal(), &action, NULL);
        sigemptyset(&kick);
        sigaddset(&kick, kick_signal());
        pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
        v->thread = pthread_self();
        atomic_store(&v->has_thread, true);
}

static void kvm_kick(struct vcpu *vcpu)
{
        struct kvm_vcpu *v = vcpu->provider;
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        if (atomic_load(&v->has_thread))
                pthread_kill(v->thread, kick_signal());
}

static void kvm_destroy(struct vcpu *vcpu)
{
        struct kvm_vcpu *v = vcpu->provider;
        if (!v)
                return;
        kvm_rescue_finish(v);
        if (v->run)
                munmap(v->run, v->kvm->run_size);
        close_fd(&v->fd);
        free(v);
        vcpu->provider = NULL;
}

static int kvm_create(struct vcpu *vcpu, struct err *err)
{
        struct kvm_machine *k = vcpu->machine->provider;
        struct kvm_vcpu *v = new0(struct kvm_vcpu);
        v->vcpu = vcpu;
        v->kvm = k;
        vcpu->provider = v;
        v->fd = ioctl(k->vm_fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
        int r = v->fd < 0 ? err_set(err, errno, "vCPU %u under KVM", vcpu->index) : 0;
        if (r == 0) {
                void *run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
                if (run == MAP_FAILED)
                        r = err_set(err, errno, "vCPU %u: map its shared page", vcpu->index);
                else
                        v->run = run;
        }
        if (r == 0 && !vcpu->machine->tsc_khz) {
                int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
                vcpu->machine->tsc_khz = khz > 0 ? (uint64_t)khz : 0;
        }
        if (r == 0)
                r = kvm_give_cpuid(v, err);
        if (r == 0)
                r = kvm_rescue_init(v, err);
        if (r < 0)
                kvm_destroy(vcpu);
        return r;
}

/* ---- running ---- */

static void do_pio(struct kvm_vcpu *v)
{
        const struct kvm_run *run = v->run;
        uint8_t *at = (uint8_t *)v->run + run->io.data_offset;
        struct bus *bus = &v->vcpu->machine->pio;
        for (uint32_t i = 0; i < run->io.count; i++, at += run->io.size) {
                uint64_t value = 0;
                if (run->io.direction == KVM_EXIT_IO_IN) {
                        bus_read(bus, run->io.port, run->io.size, &value);
                        memcpy(at, &value, run->io.size);
                } else {
                        memcpy(&value, at, run->io.size);
                        bus_write(bus, run->io.port, run->io.size, value);
                }
        }
}

static void do_mmio(struct kvm_vcpu *v)
{
        struct kvm_run *run = v->run;
        struct bus *bus = &v->vcpu->machine->mmio;
        uint64_t value = 0;
        unsigned size = run->mmio.len;
        if (run->mmio.is_write) {
                memcpy(&value, run->mmio.data, size);
                bus_write(bus, run->mmio.phys_addr, size, value);
        } else {
                bus_read(bus, run->mmio.phys_addr, size, &value);
                memcpy(run->mmio.data, &value, sizeof(value));
        }
}

/* What KVM could not go on with. */
static int internal_error(struct kvm_vcpu *v, struct err *err)
{
        if (v->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
                return err_plain(err, EIO, "vCPU %u: KVM's internal error %u", v->vcpu->index,
                                 v->run->internal.suberror);
        int r = kvm_rescue(v, err);
        if (r >= 0 && atomic_load(&v->emulated) == 1)
                log_info("vCPU %u: KVM cannot emulate an instruction; the software CPU does",
                         v->vcpu->index);
        return r;
}

static enum vcpu_exit failed(struct kvm_vcpu *v, struct err *err, const char *what, uint64_t number)
{
        err_plain(err, EIO, "vCPU %u: KVM %s (0x%llx)", v->vcpu->index, what,
                  (unsigned long long)number);
        return VCPU_FAILED;
}

static enum vcpu_exit kvm_run_vcpu(struct vcpu *vcpu, struct err *err)
{
        struct kvm_vcpu *v = vcpu->provider;
        struct kvm_run *run = v->run;
        int r;
        if (!atomic_load(&v->has_thread))
                prepare_thread(v);
        for (;;) {
                if (v->kvm->chips)
                        kvm_split_inject(v);
                if (ioctl(v->fd, KVM_RUN, 0) < 0) {
                        if (errno == EINTR || errno == EAGAIN) {
                                if (__atomic_exchange_n(&run->immediate_exit, 0, __ATOMIC_SEQ_CST))
                                        return VCPU_KICKED;
                                continue;
                        }
                        err_set(err, errno, "vCPU %u under KVM", vcpu->index);
                        return VCPU_FAILED;
                }
                atomic_fetch_add_explicit(&v->exits, 1, memory_order_relaxed);
                switch (run->exit_reason) {
                case KVM_EXIT_IO:
                        atomic_fetch_add_explicit(&v->pio_exits, 1, memory_order_relaxed);
                        do_pio(v);
                        break;
                case KVM_EXIT_MMIO:
                        atomic_fetch_add_explicit(&v->mmio_exits, 1, memory_order_relaxed);
                        do_mmio(v);
                        break;
                case KVM_EXIT_INTR:
                case KVM_EXIT_IRQ_WINDOW_OPEN:
                        break;
                case KVM_EXIT_IOAPIC_EOI:
                        kvm_split_ended(v);
                        break;
                case KVM_EXIT_SHUTDOWN:
                        return VCPU_SHUTDOWN;
                case KVM_EXIT_INTERNAL_ERROR:
                        r = internal_error(v, err);
                        if (r != 0)
                                return r < 0 ? VCPU_FAILED : VCPU_DEBUG;
                        break;
                case KVM_EXIT_DEBUG:
                        kvm_note_stop(v);
                        return VCPU_DEBUG;
                case KVM_EXIT_FAIL_ENTRY:
                        return failed(v, err, "could not enter the guest",
                                      run->fail_entry.hardware_entry_failure_reason);
                default:
                        return failed(v, err, "stopped for a reason that is not known here",
                                      run->exit_reason);
                }
        }
}

static int get_state(struct vcpu *vcpu, struct cpu_state *ret, struct err *err)
{
        return kvm_get_state(vcpu->provider, ret, err);
}

static int set_state(struct vcpu *vcpu, const struct cpu_state *state, struct err *err)
{
        return kvm_set_state(vcpu->provider, state, err);
}

static int get_apic(struct vcpu *vcpu, struct vcpu_apic *ret, struct err *err)
{
        return kvm_get_apic(vcpu->provider, ret, err);
}

static int set_apic(struct vcpu *vcpu, const struct vcpu_apic *apic, struct err *err)
{
        return kvm_set_apic(vcpu->provider, apic, err);
}

static void counters(struct vcpu *vcpu, counter_fn *take, void *arg)
{
        struct kvm_vcpu *v = vcpu->provider;
        take(arg, "exits", atomic_load(&v->exits));
        take(arg, "pio_exits", atomic_load(&v->pio_exits));
        take(arg, "mmio_exits", atomic_load(&v->mmio_exits));
        take(arg, "emulated_by_software", atomic_load(&v->emulated));
}

#define OPERATIONS(attach_)                                                                        \
        {                                                                                          \
                .name = "kvm", .jail = JAIL_VCPU_KVM, .attach = (attach_), .detach = kvm_detach,   \
                .create = kvm_create, .destroy = kvm_destroy, .run = kvm_run_vcpu,                 \
                .kick = kvm_kick, .get_state = get_state, .set_state = set_state,                  \
                .get_apic = get_apic, .set_apic = set_apic, .get_paravirt = kvm_get_paravirt,      \
                .set_paravirt = kvm_set_paravirt, .get_clock = kvm_get_clock,                      \
                .set_clock = kvm_set_clock, .get_chips = kvm_get_chips,                            \
                .set_chips = kvm_set_chips, .set_debug = kvm_set_debug,                            \
                .pass_int3 = kvm_pass_int3, .counters = counters, .notify_fd = kvm_notify_fd,      \
                .sync_dirty = kvm_sync_dirty, .components = KVM_XCR0_KNOWN,                        \
        }

const struct vcpu_ops vcpu_kvm = OPERATIONS(kvm_attach);
const struct vcpu_ops vcpu_kvm_split = OPERATIONS(kvm_attach_split);
