/* One instruction by the software CPU, where KVM gave up. */
#include <errno.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/str.h"
#include "vmm/bus.h"
#include "vmm/kvm/kvm.h"

static uint64_t mmio_read(void *arg, uint64_t address, unsigned size)
{
        const struct kvm_vcpu *v = arg;
        uint64_t value;
        bus_read(&v->vcpu->machine->mmio, address, size, &value);
        return value;
}

static void mmio_write(void *arg, uint64_t address, unsigned size, uint64_t value)
{
        const struct kvm_vcpu *v = arg;
        bus_write(&v->vcpu->machine->mmio, address, size, value);
}

static uint32_t pio_read(void *arg, uint16_t port, unsigned size)
{
        const struct kvm_vcpu *v = arg;
        uint64_t value;
        bus_read(&v->vcpu->machine->pio, port, size, &value);
        return (uint32_t)value;
}

static void pio_write(void *arg, uint16_t port, unsigned size, uint32_t value)
{
        const struct kvm_vcpu *v = arg;
        bus_write(&v->vcpu->machine->pio, port, size, value);
}

int kvm_rescue_init(struct kvm_vcpu *v, struct err *err)
{
        v->soft_bus = (struct cpu_bus){ .arg = v,
                                        .memory = &v->kvm->memory,
                                        .mmio_read = mmio_read,
                                        .mmio_write = mmio_write,
                                        .pio_read = pio_read,
                                        .pio_write = pio_write };
        int r = cpu_create(&v->soft_bus, v->vcpu->index, &v->soft, err);
        return r < 0 ? r : cpu_set_model(v->soft, v->vcpu->machine->model, err);
}

/* Once: XSAVE and XRSTOR by the software CPU leave such registers out. */
static void warn_of_components(struct kvm_vcpu *v, uint64_t xcr0)
{
        if (v->warned || !(xcr0 & ~KVM_XCR0_KNOWN))
                return;
        v->warned = true;
        log_warning(
                "vCPU %u: the guest has switched on registers (XCR0 0x%llx) that the software CPU "
                "neither saves nor restores for its kernel; programs that use them may fail "
                "there, --cpu soft has none of them",
                v->vcpu->index, (unsigned long long)xcr0);
}

int kvm_rescue(struct kvm_vcpu *v, struct err *err)
{
        struct cpu_state state;
        int r = kvm_get_state(v, &state, err);
        if (r < 0)
                return r;
        warn_of_components(v, state.xcr0);
        uint64_t rip = state.rip;
        *cpu_state(v->soft) = state;
        cpu_state_changed(v->soft);
        cpu_flush(v->soft); /* KVM's guest wrote to memory unseen */
        enum cpu_exit reason = cpu_run(v->soft, 1);
        if (reason == CPU_EXIT_SHUTDOWN || cpu_counters(v->soft)->unimplemented)
                return err_plain(err, EIO,
                                 "vCPU %u: neither KVM nor the software CPU can execute the "
                                 "instruction at 0x%llx",
                                 v->vcpu->index, (unsigned long long)rip);
        atomic_fetch_add(&v->emulated, 1);
        r = kvm_set_state(v, cpu_state(v->soft), err);
        if (r < 0 || !(v->step || reason == CPU_EXIT_DEBUG))
                return r;
        kvm_note_soft_stop(v, reason);
        return 1;
}

void kvm_rescue_finish(struct kvm_vcpu *v)
{
        cpu_destroy(v->soft);
}
