/* Faults, and the messages by which the IOMMU tells of them and of completed invalidations. */
#include "vmm/vtd/state.h"

#define EVENT_MASKED  (1u << 31)
#define EVENT_PENDING (1u << 30)
#define RECORD_FAULT  (1ull << 63)
#define RECORD_READ   (1ull << 62)

static bool take(struct vtd_event *e, uint64_t *ret_address, uint32_t *ret_data)
{
        bool due = e->due;
        e->due = false;
        *ret_address = (uint64_t)e->address_high << 32 | e->address;
        *ret_data = e->data;
        return due;
}

/* On the loop's thread: whoever noticed may have held the interrupt fabric's lock. */
static void send_events(void *arg)
{
        struct vtd *v = arg;
        struct vtd_event *const events[] = { &v->fault_event, &v->completion_event };
        for (unsigned i = 0; i < 2; i++) {
                uint64_t address;
                uint32_t data;
                pthread_mutex_lock(&v->lock);
                v->event_posted = false;
                bool due = take(events[i], &address, &data);
                pthread_mutex_unlock(&v->lock);
                if (due)
                        irq_message(&v->machine->irq, IRQ_FROM_IOMMU, address, data);
        }
}

static void signal_event(struct vtd *v, struct vtd_event *e)
{
        if (e->control & EVENT_MASKED) {
                e->control |= EVENT_PENDING;
                return;
        }
        e->control &= ~EVENT_PENDING;
        e->due = true;
        if (!v->event_posted)
                loop_post(v->machine->loop, send_events, v);
        v->event_posted = true;
}

/* Only the first of several conditions is told of. */
void vtd_fault_status(struct vtd *v, uint32_t bits)
{
        bool quiet = !v->fault_status;
        v->fault_status |= bits;
        if (quiet)
                signal_event(v, &v->fault_event);
}

void vtd_fault(struct vtd *v, uint16_t source, enum vtd_fault reason, uint64_t information,
               bool read)
{
        if (v->fault_status & VTD_FAULT_OVERFLOW)
                return;
        if (v->record[1] & RECORD_FAULT) {
                vtd_fault_status(v, VTD_FAULT_OVERFLOW);
                return;
        }
        v->record[0] = information;
        v->record[1] = RECORD_FAULT | (read ? RECORD_READ : 0) | (uint64_t)reason << 32 | source;
        vtd_fault_status(v, VTD_FAULT_PENDING);
}

static void changed(struct vtd *v, struct vtd_event *e, bool condition)
{
        if (!condition)
                e->control &= ~EVENT_PENDING;
        else if (e->control & EVENT_PENDING && !(e->control & EVENT_MASKED))
                signal_event(v, e);
}

void vtd_faults_changed(struct vtd *v)
{
        if (!(v->record[1] & RECORD_FAULT))
                v->fault_status &= ~VTD_FAULT_PENDING;
        changed(v, &v->fault_event, v->fault_status);
}

void vtd_completed(struct vtd *v)
{
        if (v->completion_status)
                return; /* it was told of already */
        v->completion_status = 1;
        signal_event(v, &v->completion_event);
}

void vtd_completion_changed(struct vtd *v)
{
        changed(v, &v->completion_event, v->completion_status);
}
