# A picture of what the step memory prints: lines of "kind seconds MiB".
# usage: gnuplot -e "samples='FILE'" memory.gp >FILE.svg
kinds = "in_place in_place_huge two_copies both_kept"
titles = "'in place' 'in place, huge pages' 'two copies, the unused one discarded' 'two copies, both kept'"
set terminal svg size 900,400 dynamic background "white" font "sans-serif,13"
set title "Memory of QEMU and its guest while 256 MiB become private and shared again, ten times"
set xlabel "seconds"
set ylabel "MiB"
set yrange [0:*]
set grid
set key below
plot for [i=1:4] samples using (strcol(1) eq word(kinds, i) ? $2 : NaN):3 \
	with lines linewidth 2 title word(titles, i)
