#!/bin/bash
# A build as people do them, in parts, on files in /in and with results in /work. Each part says
# when it begins, and at its end the processor time it took and what came out.
export PATH=/usr/bin TMPDIR=/work LC_ALL=C PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
set -o pipefail
TIMEFORMAT='%3U %3S'
cd /work || exit 1

configure() {
        for n in {1..60}; do
                echo "int check_$n;" | sed "s/check/have/" > "conf$n.c"
                grep -q have "conf$n.c" && expr "$n" + 1 >> config.log
        done
        cat conf*.c config.log
}
compile() {
        for unit in /in/*.i; do
                gcc -O2 -g -fPIC -std=gnu17 -c "$unit" || return
        done
        cat ./*.o
}
link() {
        gcc -shared -o job.so ./*.o && strip -o small.so job.so && cat job.so small.so
}
archive() {
        tar --sort=name --mtime=@0 --owner=0 --group=0 -cf job.tar /in ./*.o job.so &&
                gzip -9nc job.tar
}
compress() {
        xz -6 -T1 -c job.tar
}
script() {
        python3 -I -S /in/words.py /in/*.i
}
text() {
        cat /in/*.i /in/*.i /in/*.i | tr -cs 'A-Za-z_' '\n' | sort | uniq -c | sort -k1,1nr -k2 || return
        awk '{ for (k = 1; k <= NF; k++) n[$k] += length($0) } END { for (w in n) print w, n[w] }' \
                /in/*.i | sort
}
digest() {
        for n in {1..6}; do
                sha256sum job.tar /usr/lib/gcc/x86_64-linux-gnu/*/cc1
        done
}

for part in configure compile link archive compress script text digest; do
        echo "part $part begin"
        { time "$part" > /work/result 2> /work/errors; } 2> /work/time
        said=$?
        echo "part $part end $said $(< /work/time) $(sha256sum < /work/result)"
        cat /work/errors
        rm /work/result
done
