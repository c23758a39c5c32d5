/* Guest physical memory: slots, the bus, and the generations of pages that hold code. */
#include "cpu/mmu.h"
#include "cpu/translate.h"

#include <string.h>

int cpu_memory_init(struct cpu_memory *memory, struct err *err)
{
        uint64_t top = 0;
        for (unsigned i = 0; i < memory->length; i++) {
                const struct cpu_slot *slot = &memory->slots[i];
                if ((slot->gpa | slot->size_bytes | (uintptr_t)slot->host) & PAGE_MASK)
                        return err_plain(err, EINVAL, "memory slot %u is not page aligned", i);
                if (slot->gpa + slot->size_bytes > top)
                        top = slot->gpa + slot->size_bytes;
        }
        memory->pages = top >> 12;
        memory->code_generation = calloc(memory->pages ? memory->pages : 1, sizeof(uint32_t));
        if (!memory->code_generation)
                return err_set(err, ENOMEM, "code map of %llu pages",
                               (unsigned long long)memory->pages);
        return 0;
}

void cpu_memory_finish(struct cpu_memory *memory)
{
        free(memory->code_generation);
        memory->code_generation = NULL;
}

void cpu_tell_others(const struct cpu_memory *memory, const struct cpu *but)
{
        unsigned length = atomic_load(&memory->cpus_length);
        for (unsigned i = 0; i < length; i++)
                if (memory->cpus[i] != but)
                        cpu_pend(memory->cpus[i], PEND_CODE);
}

bool cpu_page_written(struct cpu_memory *memory, uint64_t page)
{
        if (page >= memory->pages)
                return false;
        cpu_note_write(memory, page);
        uint32_t old = __atomic_load_n(&memory->code_generation[page], __ATOMIC_RELAXED);
        while (old & 1) {
                if (__atomic_compare_exchange_n(&memory->code_generation[page], &old, old + 1, true,
                                                __ATOMIC_RELEASE, __ATOMIC_RELAXED))
                        return true;
        }
        return false;
}

void cpu_memory_written(struct cpu_memory *memory, uint64_t gpa, uint64_t size_bytes)
{
        if (size_bytes == 0)
                return;
        bool code = false;
        for (uint64_t page = gpa >> 12; page <= (gpa + size_bytes - 1) >> 12; page++)
                code |= cpu_page_written(memory, page);
        if (code)
                cpu_tell_others(memory, NULL);
}

static const struct cpu_slot *slot_find(const struct cpu_memory *memory, uint64_t gpa)
{
        for (unsigned i = 0; i < memory->length; i++)
                if (gpa - memory->slots[i].gpa < memory->slots[i].size_bytes)
                        return &memory->slots[i];
        return NULL;
}

uint8_t *cpu_ram(struct cpu *cpu, uint64_t gpa, bool write)
{
        const struct cpu_slot *slot = slot_find(cpu->memory, gpa);
        if (!slot || (write && slot->read_only))
                return NULL;
        return slot->host + (gpa - slot->gpa);
}

static uint64_t bus_read(struct cpu *cpu, uint64_t gpa, unsigned size)
{
        cpu->counters.device_accesses++;
        if (!cpu->bus->mmio_read)
                return UINT64_MAX;
        cpu_fpu_leave(cpu);
        uint64_t value = cpu->bus->mmio_read(cpu->bus->arg, gpa, size);
        cpu_fpu_enter(cpu);
        return value;
}

static void bus_write(struct cpu *cpu, uint64_t gpa, unsigned size, uint64_t value)
{
        cpu->counters.device_accesses++;
        if (!cpu->bus->mmio_write)
                return;
        cpu_code_catch_up(cpu);
        cpu_fpu_leave(cpu);
        cpu->bus->mmio_write(cpu->bus->arg, gpa, size, value);
        cpu_fpu_enter(cpu);
}

/* Device registers see accesses of at most 8 bytes, a power of two each. */
static unsigned bus_piece(uint64_t gpa, unsigned size)
{
        unsigned piece = size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
        while (gpa & (piece - 1))
                piece /= 2;
        return piece;
}

void cpu_code_written(struct cpu *cpu, uint64_t gpa)
{
        if (cpu_page_written(cpu->memory, gpa >> 12)) {
                cpu_jumps_forget_page(cpu, gpa);
                cpu_tell_others(cpu->memory, cpu);
        }
        if (gpa >> 12 == cpu->block_page >> 12 && cpu->step)
                cpu_stop_block(cpu); /* the code being executed changed */
}

/* Within one page. */
void cpu_physical_read(struct cpu *cpu, uint64_t gpa, uint8_t *bytes, unsigned size)
{
        const uint8_t *host = cpu_ram(cpu, gpa, false);
        if (host) {
                memcpy(bytes, host, size);
                return;
        }
        while (size) {
                unsigned piece = bus_piece(gpa, size);
                uint64_t value = bus_read(cpu, gpa, piece);
                memcpy(bytes, &value, piece);
                gpa += piece;
                bytes += piece;
                size -= piece;
        }
}

void cpu_physical_write(struct cpu *cpu, uint64_t gpa, const uint8_t *bytes, unsigned size)
{
        uint8_t *host = cpu_ram(cpu, gpa, true);
        if (host) {
                memcpy(host, bytes, size);
                cpu_code_written(cpu, gpa);
                return;
        }
        while (size) {
                unsigned piece = bus_piece(gpa, size);
                uint64_t value = 0;
                memcpy(&value, bytes, piece);
                bus_write(cpu, gpa, piece, value);
                gpa += piece;
                bytes += piece;
                size -= piece;
        }
}
