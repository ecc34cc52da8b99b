#!/bin/sh
# soak LOAD...: the soak's load, in the background: the loads of the probe, and work as a build does it. Each prints
# "soak: NAME ROUNDS" now and then, and "soak: NAME failed: ..." if something is not as it was.

# Short processes over many small files: written, searched, sorted, packed, unpacked, compared.
files() {
	round=0
	first=
	mkdir -p /tmp/soak
	cd /tmp/soak || exit
	while :; do
		rm -rf tree copy tree.tar.gz
		mkdir -p tree/a tree/b
		for i in 1 2 3 4 5 6 7 8; do
			for part in a b; do
				awk -v seed=$i$part 'BEGIN {
					n = length(seed) * 7919 + seed + 1
					for (i = 0; i < 60; i++) { n = (n * 1103 + 12345) % 65536; print "line", i, n, "of", seed }
				}' >tree/$part/file$i
			done
		done
		find tree -type f | sort | while read -r name; do
			sed -e 's/line/Line/' -e '/7$/d' "$name" | sort -n -k 3 | uniq >"$name.sorted"
		done
		tar -cf - $(find tree -type f | sort) | gzip >tree.tar.gz
		mkdir copy
		gunzip -c tree.tar.gz | tar -xf - -C copy
		diff -r tree copy/tree >/dev/null || echo "soak: files failed: the copy differs"
		sum=$(find copy -type f | sort | xargs cat | sha256sum)
		[ "$first" ] || first=$sum
		[ "$first" = "$sum" ] || echo "soak: files failed: the sum differs"
		round=$((round + 1))
		echo "soak: files $round"
	done
}

# All of memory is used once, so that what the host gives for it is given from the start.
dd if=/dev/zero of=/tmp/fill bs=1M 2>/dev/null
rm -f /tmp/fill
for load; do
	# The first line is the bench's: the load is there.
	echo "soak: $load 0"
	case $load in
	files) files & ;;
	*) probe load "$load" & ;;
	esac
done
