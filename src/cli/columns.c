#include "cli/columns.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* Theory of operation.
 *
 * The text is cut into lines of cells once. layout() is given a range of lines
 * and a column number; it looks for maximal runs of lines within the range that
 * have a tab-ended cell in that column, gives all of them the run's width, and
 * lays out the next column within each run. So for
 *
 *     a\tb\tc
 *     aa\tbb\tc
 *     x\ty
 *
 * column 0 is one run of three lines, column 1 a run of the first two.
 */

/* Further tabs of a line are text: layout() recurses once a column. */
#define CELLS_MAX 64

struct cell {
        const char *text;
        size_t size;  /* bytes */
        size_t width; /* code points, then columns once laid out */
};

struct line {
        struct cell *cells; /* all but the last are ended by a tab */
        size_t length;
};

struct sheet {
        struct line *lines;
        size_t length;
        size_t minimum, padding;
};

static size_t count_points(const char *text, size_t size)
{
        size_t points = 0;
        for (size_t i = 0; i < size; i++)
                points += ((unsigned char)text[i] & 0xc0) != 0x80;
        return points;
}

static void cut_line(struct line *line, const char *text, size_t size)
{
        const char *end = text + size;
        for (;;) {
                const char *tab = line->length + 1 < CELLS_MAX
                                          ? memchr(text, '\t', (size_t)(end - text))
                                          : NULL;
                const char *stop = tab ? tab : end;
                line->cells = xrealloc(line->cells, line->length + 1, sizeof(*line->cells));
                line->cells[line->length++] = (struct cell){ .text = text,
                                                             .size = (size_t)(stop - text) };
                if (!tab)
                        return;
                text = tab + 1;
        }
}

static bool has_cell(const struct line *line, size_t column)
{
        return column + 1 < line->length;
}

static void layout(struct sheet *sheet, size_t from, size_t to, size_t column)
{
        for (size_t at = from; at < to;) {
                if (!has_cell(&sheet->lines[at], column)) {
                        at++;
                        continue;
                }
                size_t end = at, width = sheet->minimum;
                for (; end < to && has_cell(&sheet->lines[end], column); end++) {
                        const struct cell *cell = &sheet->lines[end].cells[column];
                        size_t wanted = count_points(cell->text, cell->size) + sheet->padding;
                        width = wanted > width ? wanted : width;
                }
                for (size_t i = at; i < end; i++)
                        sheet->lines[i].cells[column].width = width;
                layout(sheet, at, end, column + 1);
                at = end;
        }
}

static void put_line(struct buf *out, const struct line *line)
{
        for (size_t i = 0; i < line->length; i++) {
                const struct cell *cell = &line->cells[i];
                buf_append(out, cell->text, cell->size);
                if (!has_cell(line, i))
                        continue;
                size_t points = count_points(cell->text, cell->size);
                for (size_t pad = points; pad < cell->width; pad++)
                        buf_putc(out, ' ');
        }
}

void columns_format(struct buf *out, const char *text, size_t minimum, size_t padding)
{
        struct sheet sheet = { .minimum = minimum, .padding = padding };
        bool ended = true;
        while (*text) {
                size_t size = strcspn(text, "\n");
                sheet.lines = xrealloc(sheet.lines, sheet.length + 1, sizeof(*sheet.lines));
                sheet.lines[sheet.length] = (struct line){ 0 };
                cut_line(&sheet.lines[sheet.length++], text, size);
                ended = text[size] == '\n';
                text += size + ended;
        }
        layout(&sheet, 0, sheet.length, 0);
        for (size_t i = 0; i < sheet.length; i++) {
                put_line(out, &sheet.lines[i]);
                if (i + 1 < sheet.length || ended)
                        buf_putc(out, '\n');
                free(sheet.lines[i].cells);
        }
        free(sheet.lines);
}
