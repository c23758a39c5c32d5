/* What KVM offers a debugger: INT3 and the debug registers end KVM_RUN. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/kvm/kvm.h"
#include "vmm/soft/soft.h"

#define VECTOR_DB 1
#define VECTOR_BP 3
#define DR6_HITS  15u

int kvm_set_debug(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err)
{
        struct kvm_vcpu *v = vcpu->provider;
        struct kvm_guest_debug wanted = { 0 };
        if (debug->on)
                wanted.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
        if (debug->step)
                wanted.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP |
                                  (v->kvm->debug_flags & KVM_GUESTDBG_BLOCKIRQ);
        if (debug->dr7) {
                wanted.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
                memcpy(wanted.arch.debugreg, debug->dr, sizeof(debug->dr));
                wanted.arch.debugreg[7] = debug->dr7;
        }
        if (ioctl(v->fd, KVM_SET_GUEST_DEBUG, &wanted) < 0)
                return err_set(err, errno, "vCPU %u: KVM's debugging", vcpu->index);
        struct cpu_debug soft = { .dr7 = debug->dr7, .int3 = debug->on };
        memcpy(soft.dr, debug->dr, sizeof(soft.dr));
        cpu_set_debug(v->soft, &soft);
        v->step = debug->step;
        return 0;
}

int kvm_pass_int3(struct vcpu *vcpu, struct err *err)
{
        const struct kvm_vcpu *v = vcpu->provider;
        if (v->soft_stopped) {
                cpu_pass_int3(v->soft);
                return 0;
        }
        struct kvm_vcpu_events events;
        if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
                return err_set(err, errno, "vCPU %u: KVM's events", vcpu->index);
        events.exception.injected = 1;
        events.exception.nr = VECTOR_BP;
        events.exception.has_error_code = 0;
        events.flags = 0;
        if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
                return err_set(err, errno, "vCPU %u: inject an INT3", vcpu->index);
        return 0;
}

/* Its state is the vCPU's. */
void kvm_note_soft_stop(struct kvm_vcpu *v, enum cpu_exit reason)
{
        v->vcpu->stop = soft_stop(v->soft, reason);
        v->soft_stopped = v->vcpu->stop.kind == VCPU_STOP_INT3;
}

void kvm_note_stop(struct kvm_vcpu *v)
{
        const struct kvm_debug_exit_arch *why = &v->run->debug.arch;
        v->soft_stopped = false;
        unsigned hits = why->exception == VECTOR_DB ? (unsigned)why->dr6 & DR6_HITS : 0;
        v->vcpu->stop = (struct vcpu_stop){ .kind = why->exception == VECTOR_BP ? VCPU_STOP_INT3
                                                    : hits                      ? VCPU_STOP_HARDWARE
                                                                                : VCPU_STOP_STEP,
                                            .hits = hits,
                                            .rip = why->pc };
}
