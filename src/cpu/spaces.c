/* Address spaces by PCID: what is known of those that do not run.
 *
 * Theory of operation. The TLB and the jump tables are read by translated code, which has no room
 * for a comparison of PCIDs: they hold one address space at a time, and global pages. A write to
 * CR3 that names another PCID takes out what is not global and keeps it, and puts in what
 * was kept of the other, where CR3's bit 63 says that it still counts. A program that is switched
 * to every few microseconds uses some tens of pages and of indirect jumps between two switches,
 * which are copied in less time than a single miss takes. Of a program that used more, the latest
 * jumps are kept and pages as they come: it ran long, and will miss again for a small part of its
 * time.
 *
 * What the dispatcher's cache and the page walk remember has the number of an epoch and needs no
 * copying: an address space keeps its epoch.
 *
 * A page that became code meanwhile is not writable when it is put in again, and a jump to code
 * that changed is left out: both are asked of the page's generation. INVPCID of another address
 * space forgets all of it, which is more than it must. Whatever flushes global pages, too, or drops
 * decoded code, forgets all. Protection keys are checked when a place is filled, so pages with a
 * key are not kept.
 *
 * Source: Intel SDM, volume 3, 4.10.1 (PCIDs) and 4.10.4.1 (what invalidates). */
#include "cpu/mmu.h"
#include "cpu/translate.h"

static struct space *find(struct cpu *cpu, uint16_t pcid)
{
        for (unsigned i = 0; i < SPACES; i++)
                if (cpu->spaces[i].epoch && cpu->spaces[i].pcid == pcid)
                        return &cpu->spaces[i];
        return NULL;
}

/* A free place, or that which was left first. */
static struct space *place_for(struct cpu *cpu)
{
        struct space *oldest = &cpu->spaces[0];
        for (unsigned i = 0; i < SPACES; i++) {
                if (!cpu->spaces[i].epoch)
                        return &cpu->spaces[i];
                if (cpu->spaces[i].left < oldest->left)
                        oldest = &cpu->spaces[i];
        }
        return oldest;
}

void cpu_space_forget(struct cpu *cpu, uint16_t pcid)
{
        struct space *space = find(cpu, pcid);
        if (space)
                space->epoch = 0;
}

void cpu_spaces_forget(struct cpu *cpu)
{
        for (unsigned i = 0; i < SPACES; i++)
                cpu->spaces[i].epoch = 0;
}

void cpu_space_switch(struct cpu *cpu, uint16_t from, uint16_t to, bool keep)
{
        struct space *old = place_for(cpu), *new;
        cpu->counters.tlb_switches++;
        old->pcid = from;
        old->left = ++cpu->switches;
        old->pages_length = cpu_tlb_take(cpu, old->pages, SPACE_PAGES);
        old->jumps_length = cpu_jumps_take(cpu, old->jumps, SPACE_JUMPS);
        old->epoch = cpu->epoch;
        cpu->came_from = NULL;
        new = find(cpu, to);
        if (new &&keep) {
                cpu_tlb_give(cpu, new->pages, new->pages_length);
                cpu_jumps_give(cpu, new->jumps, new->jumps_length);
                cpu->epoch = new->epoch;
        } else {
                cpu_new_epoch(cpu);
        }
        if (new) /* it runs now */
                new->epoch = 0;
        cpu_mode_changed(cpu);
}
