/* The pair of 8259A interrupt controllers. A pure model under the fabric's lock.
 * Not modelled: special mask mode, rotation, 8080 mode. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pic {
        uint8_t irr, isr, imr, lines, elcr;
        uint8_t base; /* vector of input 0 */
        uint8_t init; /* next ICW expected, 0 none */
        bool icw4, auto_eoi, read_isr;
};

struct pics {
        struct pic chip[2]; /* master, slave on input 2 */
};

void pics_reset(struct pics *p);
uint8_t pics_read(struct pics *p, unsigned chip, unsigned address);
void pics_write(struct pics *p, unsigned chip, unsigned address, uint8_t value);
void pics_line(struct pics *p, unsigned irq, bool raised);
bool pics_pending(const struct pics *p);
/* The vector to deliver; a spurious one where nothing is pending. */
uint8_t pics_acknowledge(struct pics *p);
