/* Interrupt remapping (VT-d 5.1): a message names an entry of a table, the entry says to which
 * processor and as what it goes on. */
#include "vmm/layout.h"
#include "vmm/vtd/state.h"

#define MESSAGE_REMAPPED(address)  ((address) >> 4 & 1)
#define MESSAGE_SUBHANDLE(address) ((address) >> 3 & 1)
#define MESSAGE_HANDLE(address)    ((uint32_t)(((address) >> 5 & 0x7fff) | ((address) >> 2 & 1) << 15))
#define MESSAGE_ASSERT             (1u << 14)

#define ENTRY_PRESENT     1ull
#define ENTRY_QUIET       2ull
#define ENTRY_RESERVED    0xff00f000ull /* posted interrupts, too, which there are not */
#define ENTRY_RESERVED2   0xfffffffffff00000ull
#define ENTRY_SOURCE(e)   ((uint16_t)(e))
#define ENTRY_IGNORED(e)  ((unsigned)((e) >> 16 & 3)) /* how many bits of the function */
#define ENTRY_VERIFIED(e) ((unsigned)((e) >> 18 & 3))

enum { VERIFY_NOTHING, VERIFY_SOURCE, VERIFY_BUS };

static bool refuse(struct vtd *v, int source, enum vtd_fault reason, uint32_t index)
{
        vtd_fault(v, source < 0 ? 0 : (uint16_t)source, reason, (uint64_t)index << 48, false);
        return false;
}

static bool source_fits(uint64_t high, int source)
{
        static const uint16_t masks[] = { 0xffff, 0xfffb, 0xfff9, 0xfff8 };
        uint16_t wanted = ENTRY_SOURCE(high), mask = masks[ENTRY_IGNORED(high)];
        int bus = source >> 8;
        switch (ENTRY_VERIFIED(high)) {
        case VERIFY_NOTHING:
                return true;
        case VERIFY_SOURCE:
                return (wanted & mask) == (source & mask);
        case VERIFY_BUS:
                return bus >= wanted >> 8 && bus <= (wanted & 0xff);
        default:
                return false;
        }
}

static bool entry_of(struct vtd *v, int source, uint32_t index, uint64_t ret[2])
{
        if (index >= 2u << (v->remap_table & 15))
                return refuse(v, source, VTD_FAULT_INDEX, index);
        if (!vtd_entry_read(v, (v->remap_table & VTD_ADDRESS) + 16ull * index, ret))
                return refuse(v, source, VTD_FAULT_REMAP_ADDRESS, index);
        enum vtd_fault reason = 0;
        if (!(ret[0] & ENTRY_PRESENT))
                reason = VTD_FAULT_NO_ENTRY;
        else if (ret[0] & ENTRY_RESERVED || ret[1] & ENTRY_RESERVED2)
                reason = VTD_FAULT_REMAP_RESERVED;
        else if (source != IRQ_FROM_IOAPIC && !source_fits(ret[1], source))
                reason = VTD_FAULT_SOURCE;
        if (reason && ret[0] & ENTRY_QUIET)
                return false;
        return reason ? refuse(v, source, reason, index) : true;
}

/* As the processors take it: destination mode, hint, processor; vector, mode, trigger. */
static void compose(uint64_t entry, uint64_t *address, uint32_t *data)
{
        uint32_t level = entry >> 4 & 1;
        *address = LAYOUT_LAPIC | (entry >> 40 & 0xff) << 12 | (entry >> 3 & 1) << 3 |
                   (entry >> 2 & 1) << 2;
        *data = (uint32_t)(entry >> 16 & 0xff) | (uint32_t)(entry >> 5 & 7) << 8 | level << 15 |
                (level ? MESSAGE_ASSERT : 0);
}

static bool remap(struct vtd *v, int source, uint64_t *address, uint32_t *data)
{
        uint64_t entry[2];
        if (!MESSAGE_REMAPPED(*address))
                return v->status & VTD_COMPATIBILITY || refuse(v, source, VTD_FAULT_OLD_FORMAT, 0);
        uint32_t index = MESSAGE_HANDLE(*address);
        if (MESSAGE_SUBHANDLE(*address))
                index += *data & 0xffff;
        if (!entry_of(v, source, index, entry))
                return false;
        compose(entry[0], address, data);
        return true;
}

bool vtd_remap(void *arg, int source, uint64_t *address, uint32_t *data)
{
        struct vtd *v = arg;
        bool sent = true;
        pthread_mutex_lock(&v->lock);
        if (v->status & VTD_REMAP && *address >> 20 == LAYOUT_LAPIC >> 20)
                sent = remap(v, source, address, data);
        pthread_mutex_unlock(&v->lock);
        return sent;
}
